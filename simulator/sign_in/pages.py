"""The pages on which the owner of an account decides: consent, device code, and what came of it. No I/O."""

from html import escape

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>body{{font:16px sans-serif;max-width:30rem;margin:3rem auto}}
label,button,p{{display:block;margin:1rem 0}}</style><h1>{title}</h1>{body}</html>"""
DECISION = """<form method="post">{fields}<label>Account <select name="account">{options}</select></label>
<button name="decision" value="allow">Allow</button><button name="decision" value="deny">Deny</button></form>"""


def render_page(title: str, text: str) -> bytes:
    return PAGE.format(title=escape(title), body=f"<p>{escape(text)}</p>").encode()


def render_consent(request: str, client_id: str, accounts: int) -> bytes:
    """`request` is the query of the authorization request, which the form sends back."""
    fields = f'<input type="hidden" name="request" value="{escape(request)}">'
    return render_decision(f"{client_id} wants to use an account", fields, accounts)


def render_device(user_code: str, accounts: int) -> bytes:
    fields = f'<label>Code <input name="user_code" value="{escape(user_code)}"></label>'
    return render_decision("Sign in a device", fields, accounts)


def render_decision(title: str, fields: str, accounts: int) -> bytes:
    options = "".join(f'<option value="{number}">account{number}</option>' for number in range(accounts))
    return PAGE.format(title=escape(title), body=DECISION.format(fields=fields, options=options)).encode()
