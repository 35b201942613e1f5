# SPDX-License-Identifier: Apache-2.0
"""Tasks whose answer is a program, run and judged in a sandbox."""
