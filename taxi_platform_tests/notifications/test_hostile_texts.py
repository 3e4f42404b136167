"""Hostile texts in what a message is made of: a run's tags, which anybody who starts one sets, and errors."""

import dagster as dg
import pytest

from taxi_platform.assets.names import PARTITION_TAG
from taxi_platform.notifications.channels import Channel, Message
from taxi_platform.notifications.messages import _line, subject_of
from taxi_platform.trips.text import markdown
from taxi_platform_tests.support.hostile_texts import HOSTILE
from taxi_platform_tests.support.notification_receivers import mail_box


@pytest.mark.fault(88)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_subjects_and_lines_are_single_lines_without_links(text):
    run = dg.DagsterRun(job_name="green_ingest", run_id="1", tags={PARTITION_TAG: text.replace("\ud800", "")})
    for line in (subject_of(run), _line(f"Found {text}.")):
        assert line.isprintable() and len(line) < 400
        assert markdown(line) == line


@pytest.mark.fault(88)
def test_a_mail_has_no_header_that_a_text_adds():
    with mail_box("password") as box:
        title = f"taxi: {HOSTILE['header of a mail']}"
        assert Channel(1, box.url).send(Message("1.failure", title, f"a\n{HOSTILE['colour']}", failure=True)) is None
    (mail,) = box.mails
    assert (mail["Bcc"], mail["Subject"].split()) == (None, ["taxi:", *HOSTILE["header of a mail"].split()])
    assert "\x1b" not in mail.get_content()
