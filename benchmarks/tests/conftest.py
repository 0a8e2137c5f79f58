"""The fixtures of tests/ that the tests of the benchmarks take. No test there takes anything from here."""

from tests.conftest import _no_settings_from_outside, _temporary_folder_of_its_own, pictures, sample, tree

__all__ = ["_no_settings_from_outside", "_temporary_folder_of_its_own", "pictures", "sample", "tree"]
