"""The files that a benchmark writes: tables in Markdown and LaTeX, plots, single runs. Imports the rest of
`deploy.study.bench` except for its command.
"""
