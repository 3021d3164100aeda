"""Known calls of one thread give exactly those rows: numbers, results, errors, arguments, times."""

from collections import Counter

from tests.kernel.diary import check_same

I386, X32 = 2, 3


def test_every_call_of_a_program_is_a_row_with_its_result_and_its_arguments(record, programs, diary):
    done = record("--", programs("calls"), "plain", env=diary.env)
    assert done.status == 7
    trace = done.trace.check()
    check_same(trace, diary)
    counts = Counter((call.nr, call.ret) for call in trace.calls)
    assert counts[110, trace.calls[-1].pid] == 0
    assert sum(1 for call in trace.calls if call.nr == 110) == 1000  # getppid
    assert counts[3, -9] == 10  # close: EBADF
    assert [call.ret for call in trace.calls if call.nr == 257][-4:-1] == [-2, -20, -14]  # openat: ENOENT, ENOTDIR, EFAULT


def test_arguments_beyond_those_of_the_call_are_zero(record, programs, diary):
    trace = record("--", programs("calls"), "plain", env=diary.env).trace
    assert {call.args for call in trace.calls if call.nr == 110} == {(0, 0, 0, 0, 0, 0)}
    (pwrite,) = [call for call in trace.calls if call.nr == 18]
    assert pwrite.args[0] == 97
    assert pwrite.args[2:] == (55, 0x1122334455667788, 0, 0)
    (mmap,) = [call for call in trace.calls if call.nr == 9 and call.args[0] == 0x123000]
    assert mmap.args == (0x123000, -1, 0x7FFFFFFFFFFFFFFF, 4, 5, 0x7000)


def test_exit_group_is_a_row_without_a_return(record, programs, diary):
    trace = record("--", programs("calls"), env=diary.env).trace.check()
    last = trace.calls[-1]
    assert (last.nr, last.kind, last.ret, last.args) == (231, 1, 0, (7, 0, 0, 0, 0, 0))


def test_odd_numbers_and_32_bit_calls_from_64_bit_code_are_told_apart(record, programs, diary):
    trace = record("--", programs("calls"), "numbers", env=diary.env).trace.check()
    check_same(trace, diary)
    by_abi = Counter(call.abi for call in trace.calls)
    assert by_abi[I386] == 6
    assert by_abi[X32] == 2  # getppid, and 0x7fffffff, which has the bit as well
    assert [call.ret for call in trace.calls if call.nr in (9999, -1)] == [-38] * 3
    (close,) = [call for call in trace.calls if call.abi == I386 and call.nr == 6]
    assert (close.ret, close.args) == (-9, (0xFFFFFFF0, 0, 0, 0, 0, 0))


def test_calls_that_only_x32_has_are_known_with_their_arity(record, programs, diary):
    trace = record("--", programs("calls"), "x32", env=diary.env).trace.check()
    check_same(trace, diary)


def test_the_first_row_is_the_exec_of_the_command(record, programs, diary):
    done = record("--", programs("calls"), env=diary.env)
    first = done.trace.calls[0]
    assert (first.nr, first.ret, first.kind) == (59, 0, 0)
    assert first.pid == first.tid
