# SPDX-License-Identifier: Apache-2.0
"""Tasks in a shell, in a sandbox of their own."""
