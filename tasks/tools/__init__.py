# SPDX-License-Identifier: Apache-2.0
"""Work with tools over a database and a written policy."""
