# SPDX-License-Identifier: Apache-2.0
"""Statistics that are honest about few samples; each formula names its source."""
