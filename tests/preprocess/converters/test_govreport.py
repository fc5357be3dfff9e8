"""GovReport, from the authors' release and from copies."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.convert import main
from preprocess.records import parse_record
from utils.common_utils import UserError, read_jsonl


def section(title: str, *paragraphs: str, subsections: tuple = ()) -> dict:
    return {"section_title": title, "paragraphs": list(paragraphs), "subsections": list(subsections)}


CRS = {
    "id": "R1",
    "title": "On bridges",
    "released_date": "2019",
    "summary": ["Bridges are\n old.", "They cost."],
    "reports": section(
        "", subsections=(section("Introduction", "Many  bridges.", subsections=(section("Age", "50."),)),)
    ),
}
GAO = {
    "id": "GAO-1",
    "highlight": [
        section("Why GAO Did This Study", "To know."),
        section("What GAO Found", "It found", "this."),
        section("What GAO Recommends", "Do better."),
    ],
    "report": [
        section("Letter", "Dear Sir:", subsections=(section("Background", "Long ago."),)),
        section("Appendix", "A table."),
    ],
}


def write_release(folder, crs=CRS, gao=GAO, splits=("train",)):
    for name in ("crs", "gao", "split_ids"):
        (folder / name).mkdir(parents=True)
    (folder / "crs" / "R1.json").write_text(json.dumps(crs))
    (folder / "gao" / "GAO-1.json").write_text(json.dumps(gao))
    for split in splits:
        (folder / "split_ids" / f"crs_{split}.ids").write_text("R1\n")
        (folder / "split_ids" / f"gao_{split}.ids").write_text("GAO-1\n")
    return folder


def convert(source, target, *options: str, split: str = "train") -> list[dict]:
    main(["govreport", "--input_dir", str(source), "--output_dir", str(target), "--overwrite", *options])
    for line in (target / f"{split}.jsonl").read_bytes().splitlines():
        parse_record(line, accept_unlabelled=True)
    return list(read_jsonl(target / f"{split}.jsonl"))


def test_the_release(tmp_path, capsys):
    crs, gao = convert(write_release(tmp_path / "gov-report"), tmp_path / "out")
    assert crs == {
        "id": "CRS_R1",
        "task": "govreport",
        "context": "Introduction\n\nMany bridges.\n\nAge\n\n50.",
        "prompt": "Write a one-page summary of the report.",
        "answer": "Bridges are old.\nThey cost.",
        "meta": {"agency": "CRS"},
    }
    # Of the letter, title and paragraphs are left out and what is below is kept; recommendations are left out.
    assert gao["context"] == "Background\n\nLong ago.\n\nAppendix\n\nA table."
    assert gao["answer"] == "To know.\nIt found\nthis."
    printed = capsys.readouterr()
    assert "2 records from 1 CRS reports, 1 GAO reports" in printed.out
    assert "1 GAO reports, but 11,005 are published" in printed.err
    _, gao = convert(tmp_path / "gov-report", tmp_path / "more", "--with_recommendations")
    assert gao["answer"].endswith("this.\nDo better.")


def test_the_release_may_lie_one_folder_below(tmp_path):
    write_release(tmp_path / "gov-report", splits=("valid", "test"))
    assert len(convert(tmp_path, tmp_path / "out", split="validation")) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test.jsonl", "validation.jsonl"]


def test_reports_without_summary_are_dropped_and_counted(tmp_path, capsys):
    (record,) = convert(write_release(tmp_path / "in", crs=CRS | {"summary": [" "]}), tmp_path / "out")
    assert record["id"] == "GAO_GAO-1"
    assert "dropped: 1 reports without a summary" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crs": {"id": "R1"}}, r"crs/R1\.json: the key reports is missing"),
        (
            {"crs": CRS | {"reports": section("a") | {"paragraphs": "text"}}},
            r"R1\.json: reports\.paragraphs is of type str",
        ),
        (
            {"gao": GAO | {"report": [{"section_title": "x"}]}},
            r"GAO-1\.json: the key report\[0\]\.paragraphs is missing",
        ),
        ({"gao": []}, r"GAO-1\.json: expected a JSON object, found list"),
    ],
)
def test_foreign_reports_are_named(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        convert(write_release(tmp_path / "in", **changes), tmp_path / "out")


def test_missing_files_are_named(tmp_path):
    source = write_release(tmp_path / "in")
    (source / "gao" / "GAO-1.json").unlink()
    with pytest.raises(UserError, match=r"gao/GAO-1\.json: no such file"):
        convert(source, tmp_path / "out")
    (source / "split_ids" / "gao_train.ids").unlink()
    with pytest.raises(UserError, match=r"gao_train\.ids: no such file"):
        convert(source, tmp_path / "out")
    (source / "split_ids" / "crs_train.ids").unlink()
    with pytest.raises(UserError, match="no file such as crs_train.ids"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize("fields", [("report", "summary"), ("document", "summary"), ("input", "output")])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_copies(tmp_path, fields, form, capsys):
    rows = [dict(zip(fields, (f" text {n} ", f"short {n}"), strict=True)) for n in range(3)]
    folder = tmp_path / "in" / ("document" if form == "parquet" else "")
    folder.mkdir(parents=True)
    if form == "jsonl":
        (folder / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        for number, part in enumerate((rows[:2], rows[2:])):
            pq.write_table(pa.Table.from_pylist(part), folder / f"validation-{number:05d}-of-00002.parquet")
    records = convert(tmp_path / "in", tmp_path / "out", split="validation")
    assert [(r["id"], r["context"], r["answer"]) for r in records] == [
        (f"validation:{n}", f"text {n}", f"short {n}") for n in range(3)
    ]
    number = {"report": "973", "document": "974", "input": "972"}[fields[0]]
    assert f"3 reports, but {number} are published" in capsys.readouterr().err


def test_withheld_summaries_of_a_copy_are_no_empty_ones(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    rows = [{"id": "a", "input": "x", "output": None}, {"id": "b", "input": "y", "output": ""}]
    (tmp_path / "in" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (record,) = convert(tmp_path / "in", tmp_path / "out", split="test")
    assert (record["id"], record["answer"]) == ("a", [])
    assert "1 records have no answer" in capsys.readouterr().out


def test_a_foreign_copy_is_named_with_its_fields(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": 1}\n')
    with pytest.raises(UserError, match='holds "text", "label"; a copy of GovReport has'):
        convert(tmp_path, tmp_path / "out")
    (tmp_path / "train.jsonl").write_text('{"report": "a", "summary": 1}\n')
    with pytest.raises(UserError, match="row 1: summary is of type int, expected str or NoneType"):
        convert(tmp_path, tmp_path / "out")
