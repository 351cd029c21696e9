"""Which kernel is fastest for a layer shape on this very device: found by timing, kept in a file.

    record     the file: what was found, by device, driver and version of vkconv
    trial      candidates of one shape as a plan whose dispatches are timed
    search     the winner among the candidates of a shape
    tuned      what a session asks: the choices known for its device, and those to be found

Nothing is timed unless somebody asks for it (``vkconv tune``, ``InferenceSession(tune=True)``):
other sessions read the record. It is untrusted: a choice counts only if it is one of the candidates
for the shape on the device (``ops.conv_selection``).
"""

from __future__ import annotations

from vkconv.tuning.record import Target, Timing, read_record, record_path, save_record, target_of
from vkconv.tuning.tuned import Progress, TunedChoices, Tuning, known_choices

__all__ = [
    "Progress",
    "Target",
    "Timing",
    "TunedChoices",
    "Tuning",
    "known_choices",
    "read_record",
    "record_path",
    "save_record",
    "target_of",
]
