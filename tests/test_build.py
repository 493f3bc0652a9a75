"The source distribution builds, the wheel is built from it, and both hold what the package reads when it runs."
import shutil, subprocess, sys, tarfile, zipfile
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
TREE = ('settings.ini', 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE', 'CHANGELOG.md', 'mlcl')


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "Source distribution and wheel, the second from the first."
    root = tmp_path_factory.mktemp('tree')
    for name in TREE:
        if (ROOT/name).is_dir(): shutil.copytree(ROOT/name, root/name, ignore=shutil.ignore_patterns('__pycache__'))
        else: shutil.copy(ROOT/name, root/name)
    subprocess.run([sys.executable, '-m', 'build', '--no-isolation', '--outdir', root/'dist', root], check=True,
                   capture_output=True)
    return next((root/'dist').glob('*.tar.gz')), next((root/'dist').glob('*.whl'))


def test_what_they_hold(built):
    source, wheel = built
    held = {n.split('/', 1)[1] for n in tarfile.open(source).getnames() if '/' in n}
    # also at run time
    read = {str(p.relative_to(ROOT)) for p in (ROOT/'mlcl').rglob('*') if p.suffix not in ('', '.pyc') and p.is_file()}
    assert {'mlcl/data_files.json', 'mlcl/own/report.html', 'mlcl/own/card.md', 'mlcl/losses/reg.py'} <= read
    assert read | {'settings.ini', 'README.md', 'LICENSE'} <= held and read <= set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize('which', [0, 1])
def test_they_install(built, tmp_path, which):
    "Without dependencies, into a folder of its own: the command answers and the template is found."
    pip = [sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-build-isolation', '--no-index', '--quiet',
           '--target', tmp_path/'site', built[which]]
    subprocess.run(pip, check=True, capture_output=True)
    code = ("import mlcl, sys; assert mlcl.__file__.startswith(sys.argv[1]); from mlcl.cli import main; "
            "main(['--version'])")
    res = subprocess.run([sys.executable, '-c', code, str(tmp_path/'site')], cwd=tmp_path,
                         env=dict(PYTHONPATH=str(tmp_path/'site')), capture_output=True, text=True)
    assert res.stdout.startswith('mlcl '), res.stderr
    assert (tmp_path/'site'/'mlcl'/'own'/'report.html').exists()
