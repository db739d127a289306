"""The API's page for people: Swagger UI from files of ours, so that it works without a network."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

PAGE = "/api/v1/docs"
ASSETS = f"{PAGE}/assets"
FOLDER = Path(__file__).parent / "static"


def install(app: FastAPI) -> None:
    """Serve the page and its assets; neither needs a token, and neither tells of the inventory."""

    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=str(app.openapi_url),
            title=f"{app.title} API",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url="data:,",
        )

    app.add_api_route(PAGE, page, methods=["GET"], include_in_schema=False)
    app.mount(ASSETS, StaticFiles(directory=FOLDER), name="docs")
