"""A worker whose engines and sources are the doubles of `gil.py`."""

from pipeline.serve.workers.worker import main
from tests.benchmarks.gil import double_everything

if __name__ == "__main__":
    double_everything()
    main()
