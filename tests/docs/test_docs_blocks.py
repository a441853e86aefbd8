"""The runner of code blocks: what it runs, what it leaves out, and that a wrong page is seen."""

import pytest

from tests.docs import DOCS  # puts docs/ on the path

import blocks  # isort: skip
import check  # isort: skip

PAGE = """# Title

```python
x = 2
print(x)
```

<!-- output -->
```text
2
```

<!-- not run: needs something that is not here -->
```python
import nothing_of_this_name
```

```console
$ echo one; echo two
one
two
$ echo a b c
a ... c
```

```toml
x = 1
```

- in a list:

  ```python
  assert x == 2
  ```
"""


def run(page, folder, text):
    page.write_text(text, encoding="utf-8")
    return blocks.problems(page, folder)


def test_blocks_run_in_order_in_one_module(tmp_path):
    assert run(tmp_path / "page.md", tmp_path, PAGE) == []
    assert [b.language for b, _ in blocks.plan(PAGE)] == ["python", "console", "python"]
    assert [want for _, want in blocks.plan(PAGE)] == ["2", None, None]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("x = 2", "x = 3", "Got:\n3"),
        ("assert x == 2", "assert x == 3", "AssertionError"),
        ("a ... c", "a ... d", "Expected:\na ... d"),
        ("echo one; echo two", "echo one; false", "exit status 1"),
    ],
)
def test_a_wrong_page_is_seen_with_the_line_of_the_block(tmp_path, right, wrong, said):
    (found,) = run(tmp_path / "page.md", tmp_path, PAGE.replace(right, wrong))
    assert said in found and "page.md:" in found


def test_a_block_is_left_out_for_a_reason_only(tmp_path):
    (found,) = run(tmp_path / "page.md", tmp_path, PAGE.replace(": needs something that is not here", ":"))
    assert "ModuleNotFoundError" in found


def test_output_of_nothing_is_a_mistake():
    with pytest.raises(ValueError, match="line 4: output of no block that runs"):
        blocks.plan("text\n\n<!-- output -->\n```text\n1\n```\n")
    with pytest.raises(ValueError, match="before the first command"):
        blocks.session("one\n$ echo one\n")


def test_files_a_block_writes_are_found_by_the_next_and_not_here(tmp_path):
    text = '```python\nopen("made.txt", "w").close()\n```\n\n```bash\ntest -f made.txt\n```\n'
    assert run(tmp_path / "page.md", tmp_path, text) == []


def test_loads_from_elsewhere_and_dead_links_are_seen(tmp_path):
    (tmp_path / "index.html").write_text(
        '<link rel="stylesheet" href="https://example.org/a.css"><link rel="canonical" href="https://example.org/">'
        '<script src="//example.org/a.js"></script><a href="https://example.org/">a link loads nothing</a>'
        '<a href="gone/">dead</a><a href="other.html#there">alive</a><a href="other.html#lost">dead</a>',
        encoding="utf-8",
    )
    (tmp_path / "other.html").write_text('<p id="there">', encoding="utf-8")
    assert check.site_problems(tmp_path) == [
        "index.html loads https://example.org/a.css",
        "index.html loads //example.org/a.js",
        "index.html: no gone",
        "index.html: no anchor #lost in other.html",
    ]


def test_pages_of_the_documentation_can_be_read():
    found = check.pages()
    assert DOCS / "first-ten-minutes.md" in found and check.README in found
