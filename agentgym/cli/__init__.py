# SPDX-License-Identifier: Apache-2.0
"""The command line: a face over the library, without logic of its own."""
