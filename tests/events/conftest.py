import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Compiled code goes to a folder of the test run, not to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JELLYFIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
