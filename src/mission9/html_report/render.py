"""Template, style, scripts and data -> the page, whose policy allows only these scripts."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mission9.errors import SetupError

if TYPE_CHECKING:
    from jinja2 import Template

_PAGE = files("mission9.html_report") / "page"
_SCRIPTS = ("data.js", "pictures.js", "map.js", "browse.js", "charts.js")
_EMPTY = ""  # the style sheet that plotly adds, before it inserts its rules
# An element of this name keeps plotly from adding the style of its geographic maps, which the policy would forbid.
_MAP_STYLE = re.compile(r'getElementById\("([0-9a-f]{64})"\)')


def check_packages() -> None:
    """Check for the packages that the page needs.

    Raises:
        SetupError: one is not installed.
    """
    if importlib.util.find_spec("jinja2") is None or not _plotly().is_file():
        raise SetupError("plotly or jinja2 is not installed: pip install 'mission9[report]'")


def render(tables: Mapping[str, Any], payload: Mapping[str, Any]) -> bytes:
    """Render the whole page; the texts in `tables` are escaped."""
    from markupsafe import Markup

    scripts = [_inline(_plotly().read_text("utf-8")), "".join((_PAGE / name).read_text("utf-8") for name in _SCRIPTS)]
    style = (_PAGE / "page.css").read_text("utf-8")
    page = _template().render(
        tables,
        policy=_policy(scripts, [style, _EMPTY]),
        reserved=sorted(set(_MAP_STYLE.findall(scripts[0]))),
        style=Markup(style),  # noqa: S704 - mission9's
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - mission9's and plotly's
        data=Markup(to_script(payload)),  # noqa: S704 - escaped
    )
    return page.encode()


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((_PAGE / "page.html.j2").read_text("utf-8"))


def to_script(payload: Mapping[str, Any]) -> str:
    """JSON in which no text can end the script element."""
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _inline(script: str) -> str:
    """A script without text that could end its element, or look like a comment around it."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(scripts: list[str], styles: list[str]) -> str:
    allowed = {
        "default-src": "'none'",
        "script-src": " ".join(map(_hash, scripts)),
        "style-src": " ".join(map(_hash, styles)),
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{what} {sources}" for what, sources in allowed.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _plotly() -> Path:
    """The path of plotly.js in plotly's Python package, which need not be imported."""
    spec = importlib.util.find_spec("plotly")
    folder = Path(spec.origin).parent if spec and spec.origin else Path("plotly")
    return folder / "package_data" / "plotly.min.js"
