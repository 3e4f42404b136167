"""Messages about finished runs, sent by Apprise: by e-mail, web hook or chat.

Belongs here: what a message says (`messages`), which are still to be sent (`outbox`), to whom (`channels`), and what
sends them: any process (`delivery`) and a sensor (`sensors`).
Does not belong here: what makes a run fail, when a run is retried, and anything that changes a month. No failure of a
channel may affect a run. URLs contain secrets: channels are shown by position and scheme, and Apprise's log is muted.
"""
