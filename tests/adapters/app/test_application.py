"""The application as the HTTP layer sees it."""

from swapchart.adapters.app.application import Application
from swapchart.adapters.http1.asgi_types import SupportsFastPath


def test_application_offers_the_fast_path_under_its_name() -> None:
    """The HTTP layer finds the fast path of the application that `serve` runs."""
    assert issubclass(Application, SupportsFastPath)
