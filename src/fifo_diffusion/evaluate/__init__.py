"""Measuring videos, and what the embedded model makes of a prompt: `fifo evaluate`.

`metric` says what a metric is, `known` lists the modules that have some: `flow`, `temporal`, `cuts`, `picture` and
`world` here, and those of networks with published weights.  `reading` finds videos and reads them in blocks, `measure`
gives each block to all metrics, `series` and `sheets` keep what is told of it, `result` is the JSON, `page` the HTML.
`judge` is of the embedded worlds, `experiment` all `gates` and `stream_gates` of a model of theirs.
"""
