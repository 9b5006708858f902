"""What a run says while it goes on and at its end; and the other exposures are finished when some have failed."""

import subprocess

from snakemake.logging import logger

from rampflow.workflow import leftovers, progress, recipes, summary

BEGUN = INVENTORY.stat().st_mtime  # by the clock of the disk that the logs are on
SUMMARY = Path("logs/summary.txt")


def jobs_of(job):
    """The jobs of a cluster job, or the job itself."""
    return list(job.jobs) if job.is_group() else [job]


def without_the_failed():
    """Align and finish the exposures whose association waits in vain for others that have failed.

    Snakemake starts no job that lacks an input, so with --keep-going this is done by a run of the same command that leaves out
    the exposures that have failed. The next run has them in again: Snakemake sees that the alignment has other inputs.
    """
    scheduler = workflow.scheduler
    failed = {job.wildcards.get("stem") for group in scheduler.failed for job in jobs_of(group)} - {None}
    waiting = {job.wildcards.association for job in scheduler.remaining_jobs if job.rule.name == "tweakreg"}
    others = {stem for association in waiting for stem in members_to_align(association)} - failed
    if scheduler._user_kill or not (workflow.execution_settings.keep_going and failed and others):
        return
    logger.info("Once more without what has failed, to align the others: " + ", ".join(sorted(failed)))
    # What was forced has been done by now.
    arguments = [word for word in sys.argv[1:] if word not in ("--force", "--forceall", "-f", "-F")]
    subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments, "--forcerun", "--nolock"],
        cwd=workflow.rundir,
        env=os.environ | {"RAMPFLOW_LEFT_OUT": "\n".join(sorted(failed))},
    )


def tell_summary(tell):
    """Gather what the run's logs say, keep it, and tell it."""
    failed = [[log for job in jobs_of(group) for log in job.log] for group in workflow.scheduler.failed]
    logs = {log for job in workflow.dag.jobs for log in job.log}
    tell(summary.report(*summary.summarize(logs, failed, BEGUN), SUMMARY))
    if stale := stale_files(visit, Path(RESULTS)):
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
    progress.show_progress(logger, workflow.output_settings)


onsuccess:
    remember_made()
    if not LEFT_OUT:
        tell_summary(logger.info)


onerror:
    remember_made()
    if not LEFT_OUT:
        without_the_failed()
        tell_summary(logger.error)
