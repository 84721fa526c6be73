"""Every log event that Headwater may write: a bounded list, so that a log can be counted, searched and alerted on."""

from collections.abc import Mapping
from types import MappingProxyType

EVENTS: Mapping[str, str] = MappingProxyType(
    {
        # Any role
        "started": "The process has its settings and begins.",
        "stopping": "A signal or the caller asked the process to stop.",
        "stopped": "The process ended in order.",
        "failed": "The process ends with an error; `exit_code` says whose turn it is.",
        "health_listening": "The HTTP server for metrics and probes accepts connections.",
        "health_request_failed": "A request for metrics or a probe could not be answered.",
        "event_loop_blocked": "The event loop was late by more than its budget.",
        "crash_point_armed": "The process ends by SIGKILL at `point`; unset HEADWATER_CRASH_AT in real use.",
        "library_message": "A library wrote to Python's own logging; its text is in `message`.",
        # The bus
        "broker_unreachable": "The broker did not answer; the caller tries again after a pause.",
        "broker_reachable": "The broker answers again.",
        "client_recreated": "A Kafka client made no progress or broke and was replaced by a new one.",
        "record_unreadable": "A record could not be read; its offset is passed and recorded.",
        # The aggregator
        "restore_started": "The state is being rebuilt from the chain and the log.",
        "restored": "The state agrees with the newest official record.",
        "standby_warm": "The standby has caught up with the chain and can take over at once.",
        "standby_enters_anew": "The standby could not go on from where it stood and enters at the newest keyframe.",
        "takeover_started": "This process leads from now on and checks the log before it writes.",
        "lease_acquired": "This process holds the Lease.",
        "lease_lost": "This process may not lead any more; `reason` says why. It ends with status 75.",
        "lease_released": "The leader ended in order and left the Lease to others.",
        "lease_unreachable": "The API server gave no usable answer; said once for each reason.",
        "caught_up": "Every update that was waiting at the start has been decided.",
        "version_official": "A new model version is in the chain.",
        "record_official": "A record without a server step is in the chain.",
        "keyframe_official": "A keyframe is in the chain.",
        "keyframe_failed": "A keyframe could not be published; the next record tries again.",
        "fetch_probe_failed": "What devices need to follow the newest version could not be fetched.",
        "keyframe_cache_ignored": "What the cache folder holds is not what the chain names; it was deleted.",
        "keyframe_cache_failed": "The cache folder could not be written; a restart fetches from the broker.",
        "command_decided": "A command of the control topic was obeyed or refused; `outcome` says which.",
        "parts_lost": "Parts that newcomers need are gone from the models topic; the next record is a keyframe.",
        "parts_swept": "Parts that nobody needs any more were deleted from the models topic.",
        "update_refused": "An update was refused; `code` says why.",
        "append_in_doubt": "The broker did not confirm a record; the same bytes are sent again.",
        "records_put_back": "Official records that the log had lost were appended again, byte for byte.",
        "race_lost": "Another aggregator's record took the place; this process ends.",
        "inputs_lost": "Inputs that the broker had acknowledged are no longer in the log.",
        "reject_write_failed": "The advisory copy of a refusal could not be written.",
        "telemetry_unreadable": "A device's telemetry could not be read.",
        "evaluation_received": "The evaluator scored a version.",
        # Devices
        "model_followed": "The device has caught up with a model version.",
        "keyframe_loaded": "The device took a whole model because deltas were missing or larger.",
        "training_started": "Local training begins.",
        "training_finished": "Local training ended and its update is in the outbox.",
        "training_failed": "The training function raised; the device tries again later.",
        "torch_threads_crowded": "torch trains with several threads where other work needs the cores; said once.",
        "training_skipped": "The device may not train now, or has trained as much as may wait.",
        "update_queued": "An update waits in the outbox.",
        "update_sent": "The log has an update.",
        "update_settled": "The chain has decided on an update.",
        "update_in_doubt": "It is not known whether the log has an update; the same bytes are sent again.",
        "update_given_back": "Queued work from a base that is too old went back into the residual.",
        "update_discarded": "An update was given up and counted.",
        "incarnation_changed": "The device took a new incarnation because its outbox was a copy or was restored.",
        "outbox_corrupt": "The outbox was damaged and was moved aside; the device begins as a new one.",
        "outbox_full": "The outbox cannot be written; the device waits for space and loses nothing that was stored.",
        # The evaluator
        "version_evaluated": "A version was scored on held-out data.",
        "evaluation_failed": "The evaluation function raised; the next version is tried.",
        # The local broker and the demo
        "broker_started": "The local broker lists all its nodes.",
        "broker_stopped": "The local broker ended.",
        "role_started": "A role of the demo runs.",
        "role_died": "A role of the demo ended unexpectedly and is started again.",
    }
)
"""Name → meaning. A test fails on an event in the code that is not listed here."""
