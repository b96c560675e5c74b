"""Finds the packages of the distribution; everything else is in pyproject.toml.

The top-level folders components/ and pipelines/ are installed under names that no other project uses, which
setuptools' own discovery can't do.
"""

from setuptools import find_packages, setup

FOLDERS = {"ifas": "ifas", "ifas_components": "components", "ifas_pipelines": "pipelines"}

setup(
    package_dir=FOLDERS,
    packages=[
        package.replace(folder, name, 1)
        for name, folder in FOLDERS.items()
        for package in find_packages(include=[folder, f"{folder}.*"])
    ],
)
