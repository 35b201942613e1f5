# SPDX-License-Identifier: Apache-2.0
"""One screen a file, its styles beside it."""
