"""An exposure as one job: all steps from the raw exposure to the source catalog in one process, with arrays in memory.

Each kind of chain has a rule of its own, because the files of a rule are the same for all of its exposures. The rules of single
steps still make the files that these jobs don't write but the pictures of a report need.

With MALLOC_MMAP_MAX_=0 and a threshold that is never reached, glibc keeps the memory of an array for the next ones, and with
hugetlb=1 it asks the system for pages of 2 MB, as NumPy does for arrays outside of glibc's own memory. Together they save 0.6 of
12.2 s of processor time per full frame in a run of four (medians of five runs, in random order). The first two alone save
0.1 s, the last alone nothing.
"""

for rule_name, members in exposure_jobs.chains(BY_EXPOSURE).items():
    last_step = exposure_jobs.steps_of_exposure(members[0])[-1]

    rule:
        name:
            rule_name
        input:
            exposure=ancient(of_exposure(job_inputs.raw_exposure)),
            references=ancient(of_exposure(exposure_jobs.references_of_exposure)),
            forced_segmentation=ancient(of_exposure(job_inputs.forced_segmentation)),
            redo=of_exposure(exposure_stamp, EXPOSURE_JOB),
        output:
            **{step: exposure_after(step, whole_chain=True) for step in exposure_jobs.written_steps(members[0])},
            **(
                {
                    "catalog": f"{INTERMEDIATES}/{{stem}}_cat.parquet",
                    "segmentation": f"{INTERMEDIATES}/{{stem}}_segm.asdf",
                }
                if last_step == "source_catalog"
                else {}
            ),
        log:
            f"logs/{{stem}}/{EXPOSURE_JOB}.log",
        benchmark:
            f"benchmarks/{{stem}}/{EXPOSURE_JOB}.tsv"
        wildcard_constraints:
            stem=match_any(members),
        group:
            "exposure"
        conda:
            "../../envs/rampflow.yaml"
        threads: cores
        resources:
            mem_mb=memory(500, frames=12, ramps=1.3, more_ramps=ramps_for_large_events),
            runtime=minutes(30, per_gigabyte=10),
        params:
            written=" ".join(exposure_jobs.written_steps(members[0])),
            steps=of_exposure(exposure_jobs.step_lines),
            code=fingerprint("process_exposure"),
        message:
            f"{{wildcards.stem}}: from the raw exposure to {last_step}"
        shell:
            "OPENBLAS_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1099511627776"
            " GLIBC_TUNABLES=glibc.malloc.hugetlb=1"
            ' python "$RAMPFLOW_SCRIPTS"/process_exposure.py --write {params.written}'
            " --logs logs/{wildcards.stem:q} --benchmarks benchmarks/{wildcards.stem:q}"
            ' --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'
            " <<'STEPS'\n{params.steps}\nSTEPS\n"
