"""The networks that metrics look through, each as its authors published it, and where their weights come from.

One network a file.  `published` lists the weights, `obtain` finds or fetches them, `restricted` reads them without
running anything that they hold.
"""
