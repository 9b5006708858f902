"""What a run does at its start and its end: refuse a second run, mark outdated files, finish held-back associations, report."""

import atexit

from rampflow.workflow import affected, late_reports, leftovers, run_record
from rampflow.workflow.command_line import is_dry_run, possible_targets
from rampflow.workflow.interruptions import Interruptions
from rampflow.workflow.running import Running

SUMMARY = Path("logs/summary.txt")
INTERRUPTIONS = Interruptions()
RUNNING = Running(Path(RESULTS).absolute(), {*plan.exposures, *plan.associations()})


def show(text):
    """Show a message beside those of Snakemake."""
    print(text, file=sys.stderr, flush=True)


def mark_as_running():
    """Mark the results folder until the run ends; refuse to run if another working folder makes the same products."""
    try:
        RUNNING.begin()
    except RampflowError as error:
        raise WorkflowError(str(error)) from None
    atexit.register(RUNNING.end)


def finish_others():
    """Align and finish the exposures whose association waits for others that have failed; return their names."""
    logs = summary.failed_jobs(summary.logs_of(plan), BEGUN)
    failed = second_pass.with_readers(plan, [(log.parent.name, log.stem) for log in logs])
    with_report = late_reports.is_report_requested(sys.argv[1:])
    if stems := second_pass.exposures_to_finish(plan, failed, with_report=with_report):
        names = sorted({name for name, _ in failed} & set(plan.exposures))
        show(f"Running again without the failed exposures, to finish the others of their association: {', '.join(names)}")
        second_pass.run_second_pass(plan, stems, sys.argv[1:])
    return stems


def show_summary(logs, *, realigned=(), success):
    """Write the summary of the run, and show it; `logs` are Snakemake's own, `realigned` what a second pass has finished."""
    interrupted = INTERRUPTIONS.noted and not success
    show(
        summary.report_run(
            plan,
            SUMMARY,
            BEGUN,
            snakemake_logs=[Path(log) for log in logs],
            realigned=realigned,
            interrupted=interrupted,
            success=success,
            forget_others="remove_stale" in possible_targets(sys.argv[1:]),
        )
    )
    if plan.exposures:  # the survey of a folder leaves the record of the run that made it
        try:
            run_record.write_record(
                plan,
                BEGUN,
                sys.argv,
                success=success,
                failures=summary.failures_in(SUMMARY),
                in_one_job=BY_EXPOSURE,
                realigned=realigned,
                interrupted=interrupted,
            )
        except RampflowError as error:  # the products are there
            show(f"Warning: {error}")
    if problem := uploads.upload_records():
        show(f"The tables of the exposures and the record of the run are not on S3: {problem}")
    stale = plan.stale_files() if plan.exposures else []
    if stale:
        show(leftovers.describe_stale(stale))
    summary.append_notices(SUMMARY, plan, stale)


AFFECTED = None  # what a run would make again, if the target `affected` asks for it
if IS_MAIN_PROCESS:
    BEGUN = INVENTORY.stat().st_mtime  # by the clock of the disk that has the logs, too
    try:
        if affected.is_requested(sys.argv[1:]):
            run_start.refuse_empty(plan)
            AFFECTED = affected.Affected(plan, BY_EXPOSURE)
    except RampflowError as error:
        raise WorkflowError(str(error)) from None
if AFFECTED:
    # After Snakemake's own messages, as the summary of a run. A dry run calls none of the handlers below.
    atexit.register(show, AFFECTED.table())
elif IS_MAIN_PROCESS:
    try:
        outdated, damaged = rerun.mark_outdated(plan)
    except RampflowError as error:
        raise WorkflowError(str(error)) from None
    if outdated:
        show(recipes.describe_outdated(outdated))
    if damaged:
        show(recipes.describe_damaged(damaged))
    if late_reports.is_report_requested(sys.argv[1:]) and (repeated := late_reports.repeated_steps(plan, BY_EXPOSURE)):
        show(late_reports.describe_repeated(plan, repeated))
    try:
        if lost := uploads.forget_lost():
            show(uploads.describe_lost(lost))
    except RampflowError as error:
        raise WorkflowError(str(error)) from None
    for line in plan.inventory.selected:
        show(line)
    for notice in plan.inventory.notices:
        show(f"Warning: {notice}")
    if plan.exposures and not is_dry_run(sys.argv[1:]) and (killed := summary.begin_of_killed_run(SUMMARY, plan)):
        BEGUN = killed
        show_summary((), success=True)


onstart:
    INTERRUPTIONS.watch()
    if AFFECTED:
        AFFECTED.write(Path(RESULTS) / f"{affected.TARGET}.ecsv")
    elif not second_pass.is_second_pass():
        mark_as_running()
        summary.report_begin(SUMMARY)


onsuccess:
    if not AFFECTED:
        rerun.remember_made(plan, BEGUN, BY_EXPOSURE)
    if not (AFFECTED or second_pass.is_second_pass()):
        show_summary(log, success=True)
        RUNNING.end()


onerror:
    if not AFFECTED:
        rerun.remember_made(plan, BEGUN, BY_EXPOSURE)
    if not (AFFECTED or second_pass.is_second_pass()):
        realigned = [] if INTERRUPTIONS.noted else finish_others()
        show_summary(log, realigned=realigned, success=False)
        RUNNING.end()
