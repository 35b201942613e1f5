# SPDX-License-Identifier: Apache-2.0
"""One widget a file, its styles beside it."""
