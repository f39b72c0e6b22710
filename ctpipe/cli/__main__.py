"""python -m ctpipe.cli: the command where its script is not on the path."""

from ctpipe.cli.main import entry

if __name__ == "__main__":
    entry()
