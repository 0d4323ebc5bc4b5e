"""Draw from a learned conditional: given a label, an item, a file or a text, with weights, pictures and provenance."""

from pcl.commands.main import script

if __name__ == "__main__":
    script("draw")
