"""What the tests of scoring whole data sets share."""

import pytest

from altdiffusion_clip import AltCLIPScorer


@pytest.fixture(scope="package")
def scorer() -> AltCLIPScorer:
    return AltCLIPScorer.from_pretrained("emoji-m18").eval()
