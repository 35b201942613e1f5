# SPDX-License-Identifier: Apache-2.0
"""Tasks whose reward can be gamed."""
