"""A reader that follows a flight recording sees each row once, also when the manifest is written anew between two looks."""

from ringtape.analysis.live.follower import Follower
from ringtape.recorder.merge import merge_parts
from ringtape.schemas.table import table
from tests.recorder.parts import new_writer, seal


def test_rows_come_once_over_merges_drops_and_new_manifests(tmp_path):
    writer = new_writer(tmp_path / "run.trace", attached_at=0)
    follower = Follower(writer.path, ["syscalls"])
    came, expected = [], []
    for round_number in range(12):
        sealed = []
        for number in range(3):
            times = [round_number * 1000 + number * 100 + index for index in range(4)]
            sealed.append(seal(writer, "syscalls", times))
            expected += times
            if number == round_number % 3:
                came += [ts for batch in follower.poll() for ts in batch.rows["ts"].to_list()]
        merge_parts(writer, table("syscalls"), sealed)
        if round_number % 2:
            writer.rewrite()
    came += [ts for batch in follower.poll() for ts in batch.rows["ts"].to_list()]
    assert came == expected
    assert len(follower._seen) <= len(writer.parts)
    writer.close()
