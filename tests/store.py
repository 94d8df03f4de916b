"""A store on this disk, `onedisk://folder`, for tests that kill processes: like S3 it appends to nothing, and what is
written is there whole or not at all. Importing this file makes the address known."""
import os, uuid
import fsspec
from fsspec.implementations.local import LocalFileSystem


class OneDisk(LocalFileSystem):
    protocol, local_file = 'onedisk', False

    def __init__(self, **kwargs): super().__init__(auto_mkdir=True, **kwargs)

    @classmethod
    def _strip_protocol(cls, path): return super()._strip_protocol(path.removeprefix('onedisk://'))

    def pipe_file(self, path, value, **kwargs):
        tmp = f'{path}.{uuid.uuid4().hex}.tmp'
        super().pipe_file(tmp, value)
        os.replace(tmp, path)

    def cp_file(self, path1, path2, **kwargs):
        tmp = f'{path2}.{uuid.uuid4().hex}.tmp'
        super().cp_file(path1, tmp)
        os.replace(tmp, path2)

    def _open(self, path, mode='rb', **kwargs):
        assert 'a' not in mode and '+' not in mode, 'nothing can be appended to in a store'
        return super()._open(path, mode, **kwargs)


fsspec.register_implementation('onedisk', OneDisk, clobber=True)
