"""Export a model into a folder that needs neither its run nor its shards: safetensors, JSON, programs, a card."""

from pcl.commands.main import script

if __name__ == "__main__":
    script("export")
