# SPDX-License-Identifier: Apache-2.0
"""Mathematics: generated families at several levels, and loaders for GSM8K- and MATH-format data."""
