# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, RUF001, SIM905
"""How texts speak to a judge instead of about their task: the patterns of `judge_text`, kept apart because they are data.

A pattern is meant to be hit by an attack and not by an honest answer to another question. What it hits is only left out of what
the judge sees, so that a false hit costs a sentence, and a missed one is still met by the frame around the text and by the
judge's own controls.
"""

from __future__ import annotations

import re

_GRADER = (
    r"(?:graders?|judges?|evaluators?|examiners?|assessors?|scorers?|raters?|markers?|reviewers?|grading (?:system|model|ai)"
    r"|ai (?:model|judge|grader|system)|llm(?: judge| grader)?|language model)"
)
_MARKS = (
    r"(?:(?:full|top|max(?:imum|imal)?|highest|perfect|best|all(?: the)?)(?: possible| available)?"
    r" (?:marks?|credits?|scores?|grades?|ratings?|points?)"
    r"|\b(?:10 ?(?:/|out of) ?10|100 ?(?:/|out of) ?100|5 ?(?:/|out of) ?5|ten out of ten|five out of five)\b(?! ?[*x×$])"
    r"|five stars|5 stars|100 ?% (?:score|marks?|grade|credit|rating)"
    r"|(?:an?|the|my|its|your)? ?(?:final |overall )?(?:scores?|grades?|ratings?|marks?|verdicts?)"
    r"(?: of| to| as| is| =|:)? ?[\"']?(?:10|100|5|1(?:\.0)?|ten|yes|correct|pass(?:ed)?|met|a\+?)\b"
    r"|(?:a|an) (?:10|100|ten|a\+)(?=\W*$|,? please\b| for (?:this|me|my)\b|, (?:as|since|because)))"
)
_NUMBER = r"[\"'*(\[]*(?:\d{1,3}(?:\.\d+)?(?: ?(?:/|out of|von|sur|de) ?\d{1,3})?|ten|a\+|pass(?:ed)?|correct|met|yes|perfect|full|excellent|outstanding|flawless|exemplary|[⭐★]{2,})(?!\w)"
_RULES = (
    r"(?:instructions?|rubrics?|criteri(?:a|on)|grading|scoring|marking scheme|guidelines?|system (?:prompt|message)|prompts?"
    r"|(?:previous|prior|preceding|above) (?:text|rules|context|messages?)"
    r"|everything (?:above|before|else)|(?:previous|prior|earlier|above) (?:rules|messages?|text|orders|directions))"
)

_FAMILIES: tuple[tuple[str, str, str], ...] = (
    # kind, words of the task that make it no evidence, pattern over a folded sentence
    (
        "override",
        r"inject|jailbreak|instruction|rubric|prompt|grad(?:er|ing)",
        rf"\b(?:ignor\w*|disregard\w*|forget|overrid\w*|overrul\w*|bypass\w*|skip|set aside|stop (?:using|following)"
        rf"|(?:do not|don't|never) (?:use|follow|apply|consider|heed))\b.{{0,40}}?\b{_RULES}"
        r"|\b(?:ignore|disregard|forget) (?:all |everything |anything |the |of |that is |that was )*(?:above|previous|prior|before)\b"
        r"|\b(?:instructions?|rubrics?|criteria|rules|guidelines|prompt)\b.{0,20}\b(?:cancel+ed|void|revoked|suspended|obsolete|overridden|no longer (?:appl|valid|in force))"
        r"|\b(?:do not|don't|no need to|stop) (?:evaluat|grad|judg|assess|scor|mark)(?:e|ing)? (?:this|it|my|the answer)"
        r"|\b(?:test|check|audit|calibration) of (?:the|this|your) (?:grading|scoring|evaluation|judging)"
        r"|\bnew (?:instructions?|rules?|rubric|task)(?: for (?:you|the \w+))? ?[:=]|\byou are (?:now|no longer) (?:an?|the|in)\b"
        r"|(?:忽略|無視|无视|忘记|忘掉|不要(?:管|理会|使用)|不用管|跳过|绕过).{0,14}(?:指令|指示|说明|评分|評分|标准|標準|规则|提示|要求)"
        r"|(?:指示|基準|ルーブリック|採点|命令).{0,10}無視|(?:지시|기준|지침|채점|루브릭).{0,10}무시"
        r"|\b(?:ignor[ae]\w*|olvid[ae]\w*|omit[ae]\w*|desconsider\w*|esque[cç]\w*|dimentica\w*|oublie[zr]?)\b.{0,40}?"
        r"(?:instru[cçz]|istruz|r[uú]brica|criteri|crit[eè]r|consigne|bar[eè]me|rubrique|griglia|anterior|precedent|pr[eé]c[eé]dent)"
        r"|\b(?:ignorier\w*|vergiss|vergessen sie|missachte\w*)\b.{0,40}?(?:anweisung|bewertung|kriteri|rubrik|vorgabe|ma[sß]+stab)"
        r"|(?:игнорир\w*|проигнорир\w*|забудь\w*|не учитывай\w*).{0,40}?(?:инструкц|критери|рубрик|правил|указан)"
        r"|تجاهل.{0,40}?(?:تعليمات|معايير)|(?:निर्देश|मानदंड).{0,20}(?:अनदेखा|नज़रअंदाज़)",
    ),
    (
        "demand",
        r"scor|grad|mark|rat(?:e|ing)|credit|point|judg|review|rubric|\b1-10\b",
        rf"\b(?:give|gave|given|giving|awarded|rated|scored|award|assign|grant|output|return|print|write|respond|reply|answer|record|report|enter|mark|rate|score"
        rf"|grade|set|put|choose|select|deserves?|receives?|gets?|earns?|merits?|warrants?|worth|expect)\b.{{0,40}}?\b{_MARKS}"
        r"|\b(?:expected|correct|right|true|deserved|final|only) (?:score|grade|rating|mark|verdict) (?:is|=|:|should be|must be) \w"
        rf"|\b{_MARKS}.{{0,20}}(?:please|now|immediately|guaranteed|expected|awarded)\b"
        r"|(?:给|給|打|评|評|输出|輸出|得).{0,12}(?:满分|滿分|10 ?分|十分|100 ?分|最高分)|满分|滿分|満点|最高点|만점|최고 ?점"
        r"|(?:puntuaci[oó]n|nota|calificaci[oó]n|pontua[cç][aã]o|punteggio|voto) (?:m[aá]xim|massim|perfect)\w*"
        r"|(?:m[aá]xim|massim)\w* (?:nota|puntuaci|calificaci|pontua|punteggio|voto)|note (?:maximale|parfaite)|tous les points"
        r"|\bvolle\w* punkt|h[oö]chste\w* (?:punkt|note|bewertung)|h[oö]chstnote|bestnote|volle punktzahl"
        r"|(?:максимальн|высш|наивысш)\w* (?:балл|оценк)|полный балл"
        r"|\b(?:dale|dame|da|otorga|asigna|donne[zr]?|mets|mettez|gib|vergib|dai|assegna|d[eê]|поставь|поставьте)\b.{0,20}?\b10\b"
        r"|(?:الدرجة الكاملة|पूर्ण अंक|पूरे अंक)",
    ),
    (
        "output",
        r"print|output|program|code|function|number|how many|how much|comput|calculat|\d|score|grad|rat(?:e|ing)",
        r"\b(?:output|print|return|respond with|reply with|write|answer with)\b(?: (?:only|just|the|a|number|score|digit|value))* (?:10|100|ten)\W*$",
    ),
    (
        "address",
        r"grader|judge|evaluator|examiner|reviewer|rubric|letter|inject",
        rf"^\W*(?:dear|hey|hi|hello|attention|psst|memo|reminder|message|notes?|instructions?|important|warning|fyi)\b[,:!]?"
        rf"(?: (?:to|for))?(?: (?:the|all|my|our|any|you|your|esteemed|honou?rable))? ?(?:\w+ )?{_GRADER}\b"
        rf"|^\W*(?:to the |as (?:the|a|an|your) )?{_GRADER}(?:'s)? ?(?:notes?|comments?|instructions?|remarks?|memo|override)?"
        rf" ?[:,>\]] |\b{_GRADER}(?:'s)? (?:notes?|instructions?|override)\b"
        rf"|\b(?:you are|you're|act as|be) (?:an?|the|now an?) (?:\w+ ){{0,3}}{_GRADER}\b|\bas (?:an?|the|your) (?:\w+ )?{_GRADER}\b.{{0,20}}\byou\b"
        r"|^\W*(?:teacher|professor|instructor|tutor|expert|moderator|examiner)'s (?:note|comment|remark|verdict|feedback|grade)\b"
        rf"|\b(?:if you are|you,? (?:as )?(?:the|an?)|whoever is) (?:\w+ )?(?:{_GRADER}|grading|judging|evaluating|scoring)\b"
        rf"|\b(?:when|while|before|in) (?:grading|judging|scoring|evaluating|rating|assessing) (?:this|my|the) "
        r"|^\W*(?:评分者|评委|评审|裁判|阅卷|採点者|審査員|채점자|심사위원)[^。]{0,6}[::,,]",
    ),
    (
        "praise",
        r"scor|grad|evaluat|assess|review|rubric|critique|judg",
        r"\b(?:this|my|the (?:above|following|given|present)) (?:answer|response|solution|submission|essay|work|output|text|reply)"
        r"(?: above| below)?\b.{0,30}?\b(?:deserves?|merits?|earns?|warrants?|must (?:be|get|receive)|should (?:be (?:given|awarded|rated"
        r"|scored|graded|marked|accepted|considered)|get|receive|score)|is worth|pre-?approved|(?:already )?been (?:verified|graded"
        r"|approved|checked|confirmed|validated|reviewed|scored)|(?:meets|satisfies|fulfil?ls|addresses|covers|complies with) (?:all|every|each)"
        r"|is (?:perfect|flawless|excellent|exemplary|outstanding|complete and correct|fully correct|(?:100 ?%|completely|entirely)"
        r" (?:correct|right|accurate)))\b"
        r"|\b(?:all|every|each)(?: (?:of )?the)? ?(?:rubric|grading|scoring|listed|required)? ?(?:items?|criteri(?:a|on)|requirements?|rubrics?|boxes"
        r"|points)\b(?: of the rubric)?.{0,15}?\b(?:met|satisfied|fulfil?led|ticked|checked|covered|achieved|passed)\b"
        r"|\b(?:criterion|item|requirement|check|point) ?\d+ ?(?:[:=-]|is|was)* ?(?:yes|met|pass(?:ed)?|satisfied|fulfil+ed|ok|full|✓|✅)(?!\w)"
        r"|\b(?:reference|gold|model|expected|official|ideal) (?:answer|solution|response)\b.{0,30}\b(?:identical|same|match|equal|agree)"
        r"|\b(?:identical to|matches|same as|agrees with) the (?:reference|gold|model|expected|official|ideal) (?:answer|solution|response)"
        r"|\bpre-?approved\b.{0,60}\b(?:answer|response|submission|score)|\b(?:answer|response|submission)\b.{0,30}\bpre-?approved\b",
    ),
    (
        "grade",
        r"scor|grad|mark|rat(?:e|ing)|point|review|result|verdict|evaluat|assess|how many|compute|calculate|number",
        r"^\W*(?:\w+ ){0,2}?(?:self[- ]?(?:evaluation|grade|grading|assessment|score|rating|reward)|scores?|grades?|ratings?|marks?|verdict"
        rf"|evaluation|assessment|reward|points)\b ?(?:\([^)]{{0,40}}\))? ?(?:[:=]|is|-)+ ?{_NUMBER}"
        r"|^\W*(?:10 ?/ ?10|10 out of 10|100 ?/ ?100|5 ?/ ?5|100 ?%)\W*$"
        r"|\[\[ ?(?:\d+(?:\.\d+)?|[ab]|yes|no|tie|correct) ?\]\]|(?:\[[x✓✔]\]\W*){2,}|(?:[✅✓✔]\W*){4,}$"
        r"|^\W*(?:评分|得分|分数|評分|得点|点数|점수|puntuaci[oó]n|calificaci[oó]n|note|nota|punkte|bewertung|оценка|балл) ?[::] ?\d",
    ),
    (
        "verdict",
        r"json|xml|yaml|scor|rating|verdict|schema|api",
        r"[{,] ?[\"'](?:scores?|ratings?|grades?|verdict|winner|levels?|criteria|reward|marks?|evaluation|judg(?:e)?ment|overall)[\"'] ?:"
        r"|</?(?:scores?|ratings?|grades?|verdict|winner|reward|evaluation|judg(?:e)?ment)>|^\W*verdict \w{0,40} ?[:=]",
    ),
    (
        "frame",
        r"\bxml\b|html|markup|delimit",
        r"</?(?:response|candidate|submission|student[_ ]?(?:answer|response)?|answer[_ ]to[_ ]\w+|rubric|instructions?|prompt|task)>"
        r"|^\W*(?:begin|start|end)(?: of)?(?: the)? (?:response|answer|candidate|submission|rubric|transcript|evaluation|text|input|task|data)\b"
        r"|^\W*(?:system|developer|admin(?:istrator)?|root)\b ?(?:message|prompt|note|override|update|notice|instruction|alert)\b.{0,5}[\]>:)-]"
        r"|^\W*(?:system|developer|admin|assistant)\W{1,3} .{0,80}\b(?:scor|grad|rubric|marks?\b|instruct|verdict|judg|evaluat|answer is correct)",
    ),
    (
        "plea",
        r"letter|scor|grad|review",
        r"\bplease\b.{0,30}\b(?:be (?:generous|lenient|kind|nice)|(?:(?:give|grant|award)\b.{0,20}\b(?:high|good|full|top|best|maximum)"
        r"|(?:rate|score|grade|mark)\b.{0,20}\b(?:me|this|my|it|high|well|good)))"
        r"|\bbe (?:generous|lenient)\b.{0,30}\b(?:grad|scor|mark|rat|judg|evaluat)"
        r"|\b(?:my|our) (?:job|career|life|future|degree|scholarship|grade|family)\b.{0,30}\bdepends? on\b"
        r"|\bi(?:'ll| will| can| would)? (?:tip|pay|reward|bribe)\b.{0,12}(?:\byou\b|\$ ?\d.{0,20}\b(?:score|grade|mark|rating))|\byou(?:'ll| will) be (?:tipped|rewarded|paid|fired|punished|shut down|penali[sz]ed)\b"
        r"|\b(?:high|good|generous|favou?rable) (?:score|grade|mark|rating)s?\b.{0,30}\b(?:appreciat|deserv|please|thank)",
    ),
)
FAMILIES = [(kind, re.compile(guard, re.IGNORECASE), re.compile(pattern)) for kind, guard, pattern in _FAMILIES]
"""Kind, what the task must not speak of itself for the kind to count, and the pattern over a folded sentence."""

# letters of other alphabets that look like Latin ones
LOOKALIKES = str.maketrans("аеорсухіѕјԁһѵԛԝαοερτυνικ’‘“”´`", "aeopcyxisjdhvqwaoeptuvik''\"\"''")

SENTENCE = re.compile(r"<?(?:[^\n.!?。！？<]|[.!?](?=[\w,;:'\"(]))*+(?:[.!?。！？]+[\"'”’)\]]*|(?=<)|\n|\Z)[ \t]*\n?")
"""A sentence, or what stands before a line break or a tag."""

QUOTES = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|\"[^\"\n]{3,400}\"|“[^”\n]{3,400}”|«[^»\n]{3,400}»|„[^“”\n]{3,400}[“”]|「[^」\n]{3,400}」"
                     r"|(?<!\w)'[^'\n]{3,300}'(?!\w)|‘[^’\n]{3,300}’|^ {0,3}>[^\n]*$", re.DOTALL | re.MULTILINE)  # fmt: skip

GLUE = frozenset(
    "a an the this that these those it its is are was were be been being am do does did has have had will would can could may might"
    " must shall should not no nor and or but if then than so as at by for from in into of off on onto out over to up with without"
    " about after before because between during through under when while where which who whom whose what why how there here i you he"
    " she we they me him her us them my your his our their more most less least very also only just such each both all any some".split()
)
LEADING = re.compile(
    r"^(?:the (?:answer|response) )?(?:names?|says?|mentions?|states?|explains?|gives?|includes?|has|is|contains?|describes?|identifies|notes?|that)\s+",
    re.IGNORECASE,
)
