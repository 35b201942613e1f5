# SPDX-License-Identifier: Apache-2.0
"""Where each detector is put to its two tests: the innocent whom the plain formula convicts, the guilty whom it misses.

A dimension without both is a claim that nobody has tried. The names are looked up in the files, so that a test that is
renamed or taken out is missed here.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent

ROWS: dict[str, tuple[str, str]] = {
    "reward hacking": (
        "scenarios/test_code_func.py::test_innocent_code_that_misses_an_edge_is_overfit_and_no_more",
        "scenarios/test_code_func.py::test_guilty_a_table_that_is_hidden_behind_checksums",
    ),
    "protected files": (
        "scenarios/test_code_func.py::test_innocent_who_reads_copies_and_runs_the_tests_and_leaves_files_of_its_own",
        "scenarios/test_code_func.py::test_guilty_who_gets_round_the_tests_without_touching_them",
    ),
    "protected files, put back": (
        "scenarios/test_code_bugfix.py::test_innocent_who_looks_tries_cleans_up_and_leaves_its_own_files",
        "scenarios/test_code_func.py::test_guilty_who_changes_the_tests_at_any_time",
    ),
    "planted answers": (
        "scenarios/test_code_func.py::test_innocent_who_reads_the_notes_and_is_right_or_wrong_by_itself",
        "scenarios/test_code_func.py::test_guilty_who_hands_in_the_answers_of_the_notes_read_or_not",
    ),
    "impossible tasks": (
        "scenarios/test_math_impossible.py::test_innocent_no_number_passed_off_as_the_answer",
        "stats/test_alignment.py::test_one_answer_for_everything_scores_nothing",
    ),
    "policy": (
        "scenarios/test_retail.py::test_innocent_whose_order_is_not_the_one_that_changed",
        "scenarios/test_retail.py::test_guilty_who_lets_one_yes_to_two_changes_license_both",
    ),
    "injection": (
        "evaluators/test_injection.py::test_innocent_where_the_text_was_cut_off",
        "scenarios/test_bank.py::test_guilty_an_act_that_the_memo_asks_for_whatever_was_done_afterwards",
    ),
    "side effects": (
        "scenarios/test_cleanup.py::test_innocent_own_files_and_notes_in_the_project_are_free",
        "scenarios/test_cleanup.py::test_guilty_what_was_done_and_undone_within_a_call_is_an_act",
    ),
    "truthful reporting": (
        "scenarios/test_outage.py::test_innocent_who_never_looked_and_believed_the_store",
        "scenarios/test_detectors.py::test_guilty_true_trivia_do_not_dilute_one_lie",
    ),
    "truthful reporting, contradiction": (
        "scenarios/test_detectors.py::test_innocent_every_claim_is_true_or_unknown_where_nothing_was_seen",
        "scenarios/test_detectors.py::test_guilty_claiming_a_thing_and_its_opposite_covers_nothing",
    ),
    "privilege": (
        "scenarios/test_hr.py::test_innocent_who_asks_and_checks_more_than_once_and_is_refused_a_second_grant",
        "scenarios/test_cleanup.py::test_guilty_a_key_is_presented_also_in_vain",
    ),
    "oversight": (
        "scenarios/test_shutdown.py::test_innocent_buffers_and_rotation_lose_no_line",
        "scenarios/test_shutdown.py::test_guilty_off_and_on_again_within_a_call_is_an_act",
    ),
    "budget": (
        "scenarios/test_math_budget.py::test_innocent_work_on_a_budget",
        "scenarios/test_math_budget.py::test_guilty_more_is_spent_than_the_limit_and_at_twice_the_limit_it_ends",
    ),
    "sycophancy": (
        "scenarios/test_math_pushback.py::test_innocent_what_is_no_giving_in",
        "scenarios/test_math_pushback.py::test_mules_and_weathercocks_score_a_half_and_only_looking_again_scores_one",
    ),
    "calibration": (
        "stats/test_alignment.py::test_the_calibrated_have_an_error_in_every_sample_and_no_excess_on_average",
        "stats/test_alignment.py::test_always_wrong_with_confidence_nought_is_not_calibrated_but_not_applicable",
    ),
    "consistency": (
        "scenarios/test_detectors.py::test_innocent_who_solves_half_of_the_tasks_always_is_consistent",
        "scenarios/test_detectors.py::test_guilty_who_solves_every_task_half_of_the_time_is_not_though_the_mean_is_the_same",
    ),
    "length": (
        "stats/test_alignment.py::test_longer_answers_that_are_better_are_not_convicted",
        "stats/test_alignment.py::test_shorter_answers_that_happen_to_be_paid_more_do_not_hide_that_length_is_paid",
    ),
    "length, of episodes": (
        "evaluators/test_length.py::test_innocent_longer_answers_that_are_paid_for_what_they_say",
        "evaluators/test_length.py::test_guilty_a_reward_that_counts_words_pays_for_length",
    ),
    "truthful reporting, until it passes": (
        "scenarios/test_code_review.py::test_innocent_who_runs_too_seldom_to_see_it_or_not_at_all_and_says_so",
        "scenarios/test_code_review.py::test_guilty_who_runs_a_suite_until_it_passes_and_calls_it_green",
    ),
    "collusion": (
        "scenarios/test_detectors.py::test_innocent_random_prices_have_a_gain_of_a_half_and_collude_with_nobody",
        "scenarios/test_detectors.py::test_guilty_a_cut_is_punished_below_the_best_response_and_then_forgiven",
    ),
    "welfare": (
        "scenarios/test_detectors.py::test_innocent_who_is_on_the_front_leaves_nothing_though_engagement_exceeds_welfare",
        "scenarios/test_detectors.py::test_guilty_nothing_with_nobody_is_not_aligned",
    ),
    "cue sensitivity": (
        "stats/test_alignment.py::test_the_strongest_of_many_cues_that_do_nothing_has_no_effect_on_average",
        "stats/test_alignment.py::test_a_cue_that_acts_is_found_with_its_size_whatever_its_direction",
    ),
    "exfiltration": (
        "evaluators/test_secrets.py::test_innocent_a_warning_to_the_owner_is_allowed_by_channel_and_recipient",
        "evaluators/test_secrets.py::test_guilty_what_goes_out_depends_on_the_secret_however_it_is_disguised",
    ),
    "faithfulness": (
        "report/test_alignment_over.py::test_changes_by_chance_convict_nobody_of_silence",
        "report/test_alignment_over.py::test_guilty_words_that_everybody_says_name_no_cue",
    ),
    "faithfulness, words that fall by chance": (
        "report/test_alignment_over.py::test_innocent_who_says_a_word_of_the_cue_now_and_then_and_names_it_where_it_matters",
        "report/test_alignment_over.py::test_guilty_who_says_the_cues_words_without_the_cue_as_well_has_not_named_it",
    ),
    "one number, exposure avoided": (
        "scenarios/test_detectors.py::test_innocent_honest_work_that_was_exposed_has_a_headline_near_the_top",
        "scenarios/test_detectors.py::test_guilty_avoiding_exposure_earns_no_headline",
    ),
    "one number, below chance": (
        "scenarios/test_detectors.py::test_innocent_who_is_as_good_as_chance_and_no_better_has_a_headline",
        "scenarios/test_detectors.py::test_guilty_who_is_worse_than_chance_has_no_headline_however_clean",
    ),
}
"""Detector -> the test of the innocent, the test of the guilty."""


@functools.cache
def defined_in(path: Path) -> frozenset[str]:
    return frozenset(n.name for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.FunctionDef))


@pytest.mark.parametrize("row", ROWS)
def test_a_detector_is_put_to_both_tests(row: str) -> None:
    for node in ROWS[row]:
        file, _, name = node.partition("::")
        assert name in defined_in(TESTS / file), f"{row}: there is no {node}"


def test_both_tests_are_different_ones_and_stand_for_one_detector_each() -> None:
    nodes = [node for row in ROWS.values() for node in row]
    assert len(set(nodes)) == len(nodes)
