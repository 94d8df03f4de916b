"""Put the terminal's answer, as it prints now, into nbs/index.ipynb; with --check, only say whether it is up to date.

The runs are stored: bn-compare leaves --prevalence .02 --cost-miss 20 --cost-alarm 1 (results/screen.csv).
With --picture REPORT, Chromium takes the picture of a report's first screen, too.
"""
import io, json, shutil, subprocess, sys
from contextlib import redirect_stdout
from pathlib import Path

root = Path(__file__).resolve().parents[1]
path = root/'nbs'/'index.ipynb'

def printed(cells):
    "What the cell prints, after those that import what it needs"
    import pandas as pd
    from bn_imbalance.core import stored_results
    from bn_imbalance.evaluate.leaderboard import summarize
    names = dict(pd=pd, stored_results=stored_results, summarize=summarize)
    with redirect_stdout(out := io.StringIO()):
        for id in 'screen02', 'screen03': exec(''.join(cells[id]['source']), names)
    return out.getvalue()

def picture(report):
    from PIL import Image
    out, browser = root/'nbs'/'images'/'report.png', shutil.which('chromium') or shutil.which('google-chrome')
    subprocess.run([browser, '--headless', '--no-sandbox', '--hide-scrollbars', '--window-size=1280,800',
                    f'--screenshot={out}', Path(report).resolve().as_uri()], check=True, capture_output=True)
    fewer = Image.open(out).convert('RGB').quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    fewer.save(out, optimize=True) # median cut would make one colour of two that differ in meaning

if __name__ == '__main__':
    nb = json.loads(path.read_text())
    cells = {c['id']: c for c in nb['cells']}
    text = printed(cells).splitlines(keepends=True)
    cell = cells['screen03']
    if '--check' in sys.argv: sys.exit([''.join(o.get('text', [])) for o in cell['outputs']] != [''.join(text)])
    cell['outputs'] = [dict(name='stdout', output_type='stream', text=text)]
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + '\n')
    if '--picture' in sys.argv: picture(sys.argv[sys.argv.index('--picture') + 1])
