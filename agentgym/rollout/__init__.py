# SPDX-License-Identifier: Apache-2.0
"""Many episodes: which tasks, in what order, how many at once, resumed where they stopped."""
