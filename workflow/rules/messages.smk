"""What a run says while it goes on and at its end; and the other exposures are finished when some have failed."""

import subprocess

from snakemake.logging import logger

from rampflow.workflow import leftovers, progress, recipes, summary
from rampflow.workflow.events import RunRecord

BEGUN = INVENTORY.stat().st_mtime  # by the clock of the disk that the logs are on
SUMMARY = Path("logs/summary.txt")
RECORD = RunRecord()
logger.addHandler(RECORD)


def blocks_alignment(job):
    """Whether the alignment of an association can't start without what a job makes."""
    entry = visit.exposures.get(job.wildcards.get("stem"))
    if entry is None or "tweakreg" not in entry.chain:
        return False
    needed = image_chain(entry.chain)
    return job.rule in needed or (job.rule == "source_catalog" and not entry.tweakreg_catalog)


def without_the_failed():
    """Align and finish the exposures whose association waits in vain for others that have failed.

    Snakemake starts no job that lacks an input, so with --keep-going this is done by a run of the same command that leaves out
    the exposures that have failed. The next run has them in again: Snakemake sees that the alignment has other inputs.
    """
    jobs = [job for together in RECORD.failed_jobs() for job in together]
    failed = {job.wildcards.get("stem") for job in jobs} - {None}
    waiting = {visit.exposures[job.wildcards["stem"]].association for job in jobs if blocks_alignment(job)}
    others = {stem for association in waiting for stem in members_to_align(association)} - failed
    if RECORD.interrupted or not (workflow.execution_settings.keep_going and failed and others):
        return
    logger.info("Once more without what has failed, to align the others: " + ", ".join(sorted(failed)))
    # What was forced has been done by now.
    arguments = [word for word in sys.argv[1:] if word not in ("--force", "--forceall", "-f", "-F")]
    subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments, "--forcerun", "--nolock"],
        cwd=workflow.rundir,
        env=os.environ | {"RAMPFLOW_LEFT_OUT": "\n".join(sorted(failed))},
    )


def count_finished_exposures(failed):
    """Number of exposures whose products are all there, and of all exposures.

    An exposure of which a job has failed doesn't count: what it has is of an earlier run.
    """
    finished = [stem for stem in visit.exposures if all(Path(name).exists() for name in products_of(stem))]
    return len(set(finished) - failed), len(visit.exposures)


def tell_summary(tell, ended_well):
    """Gather what the run's logs say, keep it, and tell it."""
    names = {*visit.exposures, *(entry.association for entry in visit.exposures.values())}
    failed = RECORD.failed_jobs(certain=True)
    logs = [[log for job in together for log in job.logs] for together in failed]
    findings = summary.summarize(summary.logs_of(names), logs, BEGUN)
    tell(
        summary.report(
            findings,
            SUMMARY,
            products=count_finished_exposures({job.wildcards.get("stem") for together in failed for job in together}),
            jobs=(RECORD.done, RECORD.total),
            interrupted=RECORD.interrupted and not ended_well,
            ended_well=ended_well,
        )
    )
    if stale := stale_files(visit, Path(RESULTS), INVENTORY.parent):
        tell(leftovers.tell(stale))
        with SUMMARY.open("a") as file:
            file.writelines(f"left from before: {path}\n" for path in stale)


def remember_made():
    """Note what this run has made (see redo_what_differs)."""
    files = {path: steps for stem in visit.exposures for path, steps in expected_recipes(stem).items()}
    recipes.remember(files | expected_solutions() | expected_stars(), BEGUN)


if workflow.is_main_process:
    try:
        outdated = redo_what_differs()
    except RampflowError as error:  # a folder that can't be written, a file that can't be read
        raise WorkflowError(str(error)) from None
    if outdated:
        logger.info(recipes.tell(outdated))


onstart:
    RECORD.note_interruptions()
    progress.show_progress(logger, workflow.output_settings)


onsuccess:
    remember_made()
    if not LEFT_OUT:
        tell_summary(logger.info, ended_well=True)


onerror:
    remember_made()
    if not LEFT_OUT:
        without_the_failed()
        tell_summary(logger.error, ended_well=False)
