"""Reading Storable images with real perl, the PyPI package ``storable`` and this library.

    pip install storable
    python tests/benchmarks/bench_storable.py [rounds]

Perl creates images of 2 KB, 200 KB and 5 MB, in network and native order. In each round perl, the
package and this library thaw the same image, one after the other, so that a busy machine affects
all three. The ratios are computed for each round, and the table shows medians. Times are processor
times (user and system), and include the time to free the value.
"""

from __future__ import annotations

import importlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pyramid_kvs.storable import thaw

MAKE_IMAGES = r"""
use strict; use warnings; use Storable qw(freeze nfreeze);
srand 7;
my $directory = shift;
sub user {
    my $n = shift;
    return { id => $n, name => "User number $n", email => "user$n\@example.org", active => 1,
        roles => ['admin', 'editor'], score => $n * 7 % 1000, city => "M\x{fc}nchen \x{263a}",
        note => undef, tags => [map { 'tag' . int rand 500 } 1 .. 3], seen => 1700000000 + $n };
}
sub session {
    my @cart = map {
        { sku => "A-$_", quantity => $_ % 5 + 1, title => "Article $_ of the catalogue" }
    } 1 .. 20;
    return { _SESSION_ID => '9f86d081884c7d659a2feaa0c55ad015', _SESSION_CTIME => 1700000000,
        user => user(4711), cart => \@cart, flash => undef, empty => {}, none => [] };
}
my %value = (
    '2 KB' => session(),
    '200 KB' => [map { user($_) } 1 .. 960],
    '5 MB' => [map { user($_) } 1 .. 23600],
);
for my $name (keys %value) {
    for my $form (['network', nfreeze($value{$name})], ['native', freeze($value{$name})]) {
        open my $file, '>:raw', "$directory/$name $form->[0]" or die $!;
        print $file $form->[1];
    }
}
"""

TIME_PERL = r"""
use Storable 'thaw';
$| = 1;
while (my $line = <STDIN>) {
    chomp $line;
    my ($times, $path) = split / /, $line, 2;
    open my $file, '<:raw', $path or die $!;
    my $image = do { local $/; <$file> };
    my ($user, $system) = times;
    thaw($image) for 1 .. $times;
    my ($user_end, $system_end) = times;
    printf "%.9f\n", ($user_end - $user + $system_end - $system) / $times;
}
"""


class Times(NamedTuple):
    """Seconds for one image in one round."""

    perl: float
    package: float
    ours: float


class Perl:
    """A perl process that measures ``thaw``."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [find_perl(), "-e", TIME_PERL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def time(self, path: Path, times: int) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(times, path, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def find_perl() -> str:
    perl = shutil.which("perl")
    if perl is None:
        raise SystemExit("needs perl with Storable")
    return perl


def load_package() -> Callable[[bytes], Any]:
    try:
        module = importlib.import_module("storable")
    except ImportError:
        raise SystemExit("needs the package: pip install storable") from None
    return module.thaw  # type: ignore[no-any-return]


def time_python(read: Callable[[bytes], Any], image: bytes, times: int) -> float:
    start = time.process_time()
    for _ in range(times):
        read(image)
    return (time.process_time() - start) / times


def measure(path: Path, rounds: int, perl: Perl, package: Callable[[bytes], Any]) -> list[Times]:
    image = path.read_bytes()
    times = max(1, 2_000_000 // len(image))
    return [
        Times(
            # The clock of perl's times() ticks a hundred times a second.
            perl.time(path, times * 10),
            time_python(package, image, times),
            time_python(thaw, image, times),
        )
        for _ in range(rounds)
    ]


def write_row(path: Path, results: list[Times]) -> str:
    def median(choose: Callable[[Times], float]) -> float:
        return statistics.median(map(choose, results))

    perl, package, ours = (median(lambda row, n=name: getattr(row, n)) for name in Times._fields)
    return (
        f"{path.name:16} {path.stat().st_size:>9} {perl * 1e3:>10.4f} {package * 1e3:>12.4f} "
        f"{ours * 1e3:>10.4f} {median(lambda row: row.ours / row.perl):>10.1f} "
        f"{median(lambda row: row.ours / row.package):>12.2f}"
    )


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    perl, package = Perl(), load_package()
    print(f"Python {platform.python_version()}, {rounds} rounds, milliseconds")
    print("image                bytes       perl   PyPI storable     ours  ours/perl  ours/package")
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([find_perl(), "-e", MAKE_IMAGES, directory], check=True)
        for path in sorted(Path(directory).iterdir(), key=lambda path: path.stat().st_size):
            print(write_row(path, measure(path, rounds, perl, package)), flush=True)
    perl.process.communicate()


if __name__ == "__main__":
    main()
