"""`python -m fedmosaic`: the command `fedmosaic`, also where it is not on the PATH."""

from deploy.cli import main

if __name__ == "__main__":
    main()
