"""The plan of a run: its exposures, associations and products."""


def test_which_exposures_and_associations_there_are(make_plan):
    plan = make_plan()
    assert plan.with_step("tweakreg") == ["a1", "a2", "b1"] and plan.without_step("tweakreg") == ["a3"]
    assert plan.associations() == plan.aligned_associations() == ["a", "b"]
    assert plan.members("a") == ["a1", "a2", "a3"] and plan.members_to_align("a") == ["a1", "a2"]


def test_all_products_are_those_of_the_exposures_and_the_alignments(make_plan):
    products = make_plan(results="out").all_products()
    assert len(products) == len(set(products)) == 3 * 7 + 5 + 2
    assert "out/a1_cat.parquet" in products and "out/a3_cat.parquet" not in products and "out/b_tweakreg.json" in products
