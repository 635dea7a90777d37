"""Translates the texts of the page that is being rendered."""

from flask import Flask, Response, g, request

from shared.languages.catalogues import Language, load_languages
from web.languages.choice import choose_language

COOKIE, PARAMETER = "farm_lang", "lang"
#: Seconds for which a browser keeps the choice.
COOKIE_SECONDS = 400 * 86_400


def get_language() -> Language:
    """The language of this request: by `?lang=`, the cookie, or what the browser accepts."""
    if "language" not in g:
        languages = load_languages()
        asked = request.args.get(PARAMETER, "")
        chosen = asked if asked in languages else request.cookies.get(COOKIE, "")
        g.language = languages[choose_language(languages, chosen, request.headers.get("accept-language", ""))]
    language: Language = g.language
    return language


def keep_choice(response: Response) -> Response:
    """Keeps a language that was chosen by `?lang=`."""
    chosen = request.args.get(PARAMETER, "")
    if chosen in load_languages():
        response.set_cookie(COOKIE, chosen, max_age=COOKIE_SECONDS, path="/admin", samesite="Lax", httponly=True)
    return response


def gettext(text: str) -> str:
    return get_language().texts.gettext(text)


def ngettext(singular: str, plural: str, count: int) -> str:
    return get_language().texts.ngettext(singular, plural, count)


def install(app: Flask) -> None:
    """Lets templates translate: `_("…")`, and `{% trans %}`."""
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.install_gettext_callables(gettext, ngettext, newstyle=True)  # type: ignore[attr-defined]
    app.jinja_env.policies["ext.i18n.trimmed"] = True
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals |= {"get_language": get_language, "load_languages": load_languages}
