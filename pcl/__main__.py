"""The command ``pcl`` as ``python -m pcl``, as jobs of a cluster run it."""

from pcl.commands.main import main

if __name__ == "__main__":
    main()
