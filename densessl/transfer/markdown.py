"""Prints a report's page as Markdown."""


def markdown(page: dict) -> str:
    """The page of ``report`` (the same dict that the HTML template gets) as Markdown."""
    lines = [f"# {_md(page['title'])}", "", _md(page["subtitle"]), ""]
    for task in page["tasks"]:
        first, *rest = (_md(sentence) for sentence in task["findings"])
        lines += [f"- **{_md(task['name'])}: {first}**", *(f"  {line}" for line in rest)]
    lines += ["", _md(page["rule"])]
    for task in page["tasks"]:
        lines += ["", f"## {_md(task['title'])}", ""]
        lines += [line for fact in task["facts"] for line in (_md(fact), "")]
        lines += _md_table(task["scores"])
        for plot in task["plots"]:
            lines += ["", f"![{_md(plot.alt)}]({plot.file})", "", f"*{_md(plot.caption)}*"]
        if task["sheet"]:
            columns = ", ".join(task["samples"]["columns"])
            lines += ["", f"![Predictions; columns: {_md(columns)}]({task['sheet']})"]
            if task["samples"]["caption"]:
                lines += ["", f"*{_md(task['samples']['caption'])}*"]
        if task["failures"]:
            lines += ["", "### Failed runs", "", *_md_table(task["failures"])]
        lines += ["", *_md_table(task["inits"])]
    if page["pretraining"]:
        lines += ["", "## Pretraining", ""]
        lines += [f"- {_md(name)}: {_md(value)}" for name, value in page["pretraining"]["facts"]]
        plot = page["pretraining"]["plot"]
        if plot:
            lines += ["", f"![{_md(plot.alt)}]({plot.file})", "", f"*{_md(plot.caption)}*"]
    lines += ["", "## Every run"]
    for task in page["tasks"]:
        lines += ["", *_md_table(task["runs"])]
    lines += ["", "## How it was made"]
    for task in page["tasks"]:
        lines += ["", f"### {_md(task['title'])}", ""]
        lines += [f"- {_md(name)}: {_md(value)}" for name, value in task["environment"]]
    return "\n".join(lines) + "\n"


def _md_table(table) -> list[str]:
    rule = ["---:" if i in table.numeric else "---" for i in range(len(table.header))]
    lines = [[_md(cell) for cell in table.header], rule]
    lines += [[_md(cell) for cell in row] for row in table.rows]
    return [f"{_md(table.caption)}:", "", *("| " + " | ".join(line) + " |" for line in lines)]


def _md(text: str) -> str:
    """Text that Markdown shows as it is: on one line, with its special characters escaped."""
    text = " ".join(str(text).split())
    for character in "\\`*_[]|":
        text = text.replace(character, "\\" + character)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
