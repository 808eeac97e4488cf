"""Of several templates, the one of the whole path names the request."""

import pytest

from otel_sentry_asgi._translate.routes import best_template


@pytest.mark.parametrize(
    ("templates", "path", "root_path", "expected"),
    [
        ([], "/x", "", None),
        (["/items/{id}"], "/items/5", "", "/items/{id}"),
        (["/items/{id}"], None, "", "/items/{id}"),
        (["/a", "/b"], None, "", "/a"),
        # FastAPIInstrumentor names a mounted application by its mount only.
        (["/sub", "/sub/items/{id}"], "/sub/items/5", "", "/sub/items/{id}"),
        (["/org/{org}", "/org/{org}/items"], "/org/acme/items", "", "/org/{org}/items"),
        # Starlette's own middleware puts the concrete prefix of a mount before the template.
        (["/org/acme/items/{id}", "/org/{org}/items/{id}"], "/org/acme/items/5", "", None),
        # A router deep inside knows only its own part.
        (["/{id}", "/v1/items/{id}"], "/v1/items/5", "", "/v1/items/{id}"),
        # The first counts where none is better.
        (["/a/{x}", "/a/{y}"], "/a/5", "", "/a/{x}"),
        (["/items/(a|b)/", "/other/{x}"], "/items/a/", "", "/items/(a|b)/"),
        # The application root is part of the path but not of Django's templates.
        (["/items/<int:pk>/"], "/shop/items/5/", "/shop", "/shop/items/<int:pk>/"),
        (["/items/<int:pk>/"], "/items/5/", "/shop", "/items/<int:pk>/"),
        (["/shop/items/{id}"], "/shop/items/5", "/shop", "/shop/items/{id}"),
        (["/items/(a|b)/"], "/shop/items/a/", "/shop", "/items/(a|b)/"),
        # A last parameter may stand for several parts.
        (["/files/{path}"], "/base/files/a/b/c", "/base", "/base/files/{path}"),
        (["/v-{version}/x"], "/base/v-2/x", "/base", "/base/v-{version}/x"),
    ],
)
def test_the_template_of_the_whole_path_is_the_best(
    templates: list[str], path: str | None, root_path: str, expected: str | None
) -> None:
    expected = templates[1] if expected is None and templates else expected
    assert best_template(templates, path, root_path) == expected
