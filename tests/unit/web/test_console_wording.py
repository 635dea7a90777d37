"""The console has a word for every state, outcome and role that the farm knows."""

from typing import get_args

from shared.api_keys.admin_tokens import Role
from shared.api_keys.api_key import KeyFields
from shared.batches.batch import STATES as BATCH_STATES
from shared.credentials.records import STATES
from shared.observability import durability
from shared.observability.tape import LETTERS
from shared.sign_in import sign_in
from web.admin.schemas.credentials import LineReport
from web.console.parts import navigation, wording


def test_every_word_of_the_farm_has_one_on_the_pages():
    fields = KeyFields.model_fields
    assert set(wording.CREDENTIAL_STATES) == set(STATES)
    assert set(wording.BATCH_STATES) == {"created", *BATCH_STATES}
    assert set(wording.SIGN_IN_STATES) == set(get_args(sign_in.State))
    assert set(wording.DURABILITY) == set(durability.STATES)
    assert set(wording.BANDS) == set(get_args(fields["band"].annotation))
    assert set(wording.RESETS) == set(get_args(fields["quota_reset"].annotation))
    assert set(wording.WORK) == {*LETTERS, "no worker"}
    assert set(wording.ROLES) == set(get_args(Role))
    assert set(wording.IMPORT_OUTCOMES) == set(get_args(LineReport.model_fields["outcome"].annotation))


def test_menu_has_each_page_once():
    names = list(navigation.PAGES.values())
    assert len(set(names)) == len(names)
