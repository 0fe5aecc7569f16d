#!/usr/bin/perl
# Creates the corpus: images by real perl, and for each image what perl itself reads from it.
#
#     perl make_corpus.pl [directory]
#
# It needs Debian's packages libdatetime-perl and libset-object-perl. The order of hashes and the
# random numbers are fixed, so the same perl always creates the same images.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;

BEGIN {
    my %fixed = (PERL_HASH_SEED => 0, PERL_PERTURB_KEYS => 0);
    if (grep { ($ENV{$_} // '') ne $fixed{$_} } keys %fixed) {
        @ENV{ keys %fixed } = values %fixed;
        exec $^X, $0, @ARGV or die $!;
    }
}

use DateTime;
use DateTime::Duration;
use Hash::Util qw(lock_hash lock_keys);
use Math::BigFloat;
use Math::BigInt;
use Scalar::Util qw(weaken);
use Set::Object;
use Storable qw(freeze nfreeze nstore store);

srand 20260101;
my $directory = shift || "$FindBin::Bin/corpus";
mkdir $directory;
my @files;
my @memory = qw(freeze nfreeze);
my @all = qw(freeze nfreeze store nstore);

{ package Plain; sub new { my $class = shift; return bless {@_}, $class } }
{ package Money; use overload '""' => sub { "$_[0]{amount} EUR" }, fallback => 1 }
{
    package Hooked;
    sub new { my ($class, @parts) = @_; return bless { string => shift @parts, parts => \@parts }, $class }
    sub STORABLE_freeze { my $self = shift; return ($self->{string}, @{ $self->{parts} }) }
    sub STORABLE_thaw { }
    package Hooked::Array;
    sub STORABLE_freeze { my $self = shift; return ("array of " . @$self, map { \$_ } @$self) }
    sub STORABLE_thaw { }
    package Hooked::Scalar;
    sub STORABLE_freeze { my $self = shift; return $$self }
    sub STORABLE_thaw { }
    package Hooked::Declines;
    sub STORABLE_freeze { return }
    sub STORABLE_thaw { }
    package Attached;
    sub STORABLE_freeze { return "attach $_[0]{name}" }
    sub STORABLE_attach { }
}
{
    package Tie::AHash;
    sub TIEHASH { my ($class, %data) = @_; return bless {%data}, $class }
    sub FETCH { return $_[0]{ $_[1] } }
    sub FIRSTKEY { return }
    package Tie::AnArray;
    sub TIEARRAY { my ($class, @data) = @_; return bless [@data], $class }
    sub FETCH { return $_[0][ $_[1] ] }
    sub FETCHSIZE { return scalar @{ $_[0] } }
    package Tie::AScalar;
    sub TIESCALAR { my ($class, $data) = @_; return bless \$data, $class }
    sub FETCH { return ${ $_[0] } }
}
{
    package Tie::Hooked;
    our @ISA = 'Tie::AHash';
    sub STORABLE_freeze { return 'tied with a hook' }
    sub STORABLE_thaw { }
}

sub write_image {
    my ($file, $image) = @_;
    open my $handle, '>:raw', $file or die "$file: $!";
    print $handle $image;
    close $handle or die "$file: $!";
}

sub image {
    my ($name, $value, @forms) = @_;
    for my $form (@forms) {
        my $file = "$directory/$name-$form.storable";
        if    ($form eq 'freeze')  { write_image($file, freeze($value)) }
        elsif ($form eq 'nfreeze') { write_image($file, nfreeze($value)) }
        elsif ($form eq 'store')   { store($value, $file) }
        else                       { nstore($value, $file) }
        push @files, $file;
    }
}

# -- a structure of everything plain, by dice -------------------------------------------------------

sub any_text {
    my $length = (0, 1, 3, 8, 20, 90, 300)[rand 7];
    my @kinds = ([0x20, 0x7e], [0, 0xff], [0xa0, 0x17f], [0x2600, 0x26ff], [0x1f600, 0x1f64f]);
    my ($low, $high) = @{ $kinds[rand @kinds] };
    return join '', map { chr $low + int rand $high - $low + 1 } 1 .. $length;
}

sub any_scalar {
    my $die = int rand 9;
    return undef if $die == 0;
    return int(rand 256) - 128 if $die == 1;
    return int(rand 2**32) - 2**31 if $die == 2;
    return int(rand 2**52) * (rand > .5 ? 1 : -1) if $die == 3;
    return (rand() - .5) * 10**int(rand(40) - 20) if $die == 4;
    return rand > .5 if $die == 5;
    return any_text();
}

sub any_value {
    my ($depth, $known) = @_;
    my $die = $depth > 5 ? 0 : rand;
    return any_scalar() if $die < .5;
    return $known->[rand @$known] if $die < .58 and @$known;
    return \any_value($depth + 1, $known) if $die < .63;
    my $made = $die < .82 ? [] : {};
    push @$known, $made;
    if (ref $made eq 'ARRAY') { push @$made, any_value($depth + 1, $known) for 1 .. rand 7 }
    else { $made->{ any_text() } = any_value($depth + 1, $known) for 1 .. rand 7 }
    bless $made, (qw(Plain Other::Class), "Caf\xc3\xa9")[rand 3] if rand > .7;
    return $made;
}

for my $number (1 .. 9) {
    my @known;
    image("random-$number", [map { any_value(0, \@known) } 1 .. 6], $number < 4 ? @all : @memory);
}

# -- what sessions look like --------------------------------------------------------------------------

{
    my $cart = [{ sku => 'A-100', quantity => 2, price => 19.99 }, { sku => 'B-7', quantity => 1, price => 5 }];
    image('session', { _SESSION_ID => '0123456789abcdef', _SESSION_CTIME => 1700000000, user => "J\x{f6}rg \x{2603}", cart => $cart, seen => $cart, balance => -140, flash => undef, empty => {}, none => [] }, @all);
}

# -- scalars -------------------------------------------------------------------------------------------

image('integers', [map({ $_, -$_ } 0, 1, 127, 128, 129, 140, 255, 256, 32767, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53), 9223372036854775807, -9223372036854775807 - 1, 18446744073709551615], @memory);
image('floats', [0.5, -0.25, 3.0, -0.0, 1 / 3, 1e15, 1e16, 2**53, 1.5e-10, 1e308, 5e-324, -1e100, 9**9**9, -9**9**9], @memory);
image('nan', [9**9**9 / 9**9**9], @memory);
image('nothing', [undef, '', 0, '0', '0.0', '0 but true', !!1, !!0, 1 == 1], @memory);
{ my @sparse; $sparse[7] = 'end'; $sparse[2] = undef; image('sparse', \@sparse, @memory) }
image('strings', ['ascii', "caf\xc3\xa9", "caf\xe9", "\x{263a}", "\x{1f600}", "\0\1\xfe\xff", "a\tb\"c\\d\n\x7f", "\x{e9}\x{100}"], @memory);
{ no warnings; image('lax-utf8', ["\x{d800}", "\x{dfff}x", "\x{110000}", "\x{7fffffff}", "\x{fffe}", "\x{10ffff}"], @memory) }
{ my $flagged = 'ascii'; utf8::upgrade($flagged); image('flagged-ascii', [$flagged, { $flagged => 1 }], @memory) }
image('long-strings', ['x' x 255, 'y' x 256, "\x{e4}\x{263a}" x 64, "\x{e4}" x 300, "\x{263a}" x 86, "\xff" x 300], @memory);
image("root-$_->[0]", $_->[1], @memory) for ['text', \'text'], ['undef', \undef], ['number', \-140], ['reference', \\'deep'], ['list', []], ['hash', {}];

# -- hashes --------------------------------------------------------------------------------------------

{
    my $latin = "na\xefve"; utf8::upgrade($latin);
    image('hash-keys', { plain => 1, '' => 2, "\x{263a}" => 3, $latin => 4, '$dollar' => 5, 'k' x 300 => 6, "\x{263a}" x 100 => 7 }, @memory);
}
image('byte-keys', { "\xff\xfe" => 1, "caf\xc3\xa9" => 2, "\xff" x 300 => 3, text => 4 }, @memory);
{ my %locked = (a => 1, b => 2, c => 3, "\x{e9}\x{100}" => 4); delete $locked{c}; lock_keys(%locked, keys %locked, 'c', "\x{263a}"); image('restricted', \%locked, @memory) }
{ my %locked = (a => 1, b => [2]); lock_hash(%locked); image('locked', { inside => \%locked, again => \%locked }, @memory) }
image('large-hash', { map { ("key $_" => $_ * 37) } 1 .. 400 }, 'nfreeze');

# -- references ----------------------------------------------------------------------------------------

image('references', [\'text', \\\'deep', \[[[]]], { a => \{ b => \undef } }, \1, \-1.5], @memory);
{ my ($list, $hash, $text) = ([1], { n => 1 }, 'shared text'); image('shared', [$list, $list, $hash, { again => $hash, list => $list }, \$text, \$text, [], [], {}, {}], @all) }
{ my $cycle = { name => 'cycle', list => [1] }; $cycle->{self} = $cycle; push @{ $cycle->{list} }, $cycle->{list}, $cycle, \\$cycle; image('cycle', $cycle, @memory) }
{ my @cycle = (1); push @cycle, \@cycle; image('cycle-list', \@cycle, @memory) }
{ my $parent = { name => 'parent' }; my $child = { parent => $parent }; weaken $child->{parent}; $parent->{child} = $child; image('weak', $parent, @memory) }
{ my $shared = 'element'; my @list = (\$shared, 1); push @list, \$list[1]; image('element-reference', \@list, @memory) }
{ local $Storable::recursion_limit = -1; my $deep = 'bottom'; $deep = $_ % 3 ? [$deep] : { down => $deep } for 1 .. 300; image('deep', $deep, @memory) }

# -- objects -------------------------------------------------------------------------------------------

image('blessed', [Plain->new(x => 1), Plain->new(y => 2), bless([1, 2], 'A::List'), bless(\(my $boxed = 'boxed'), 'A::Scalar'), bless(\(my $inner = Plain->new), 'A::Reference')], @all);
image('classes', [map { bless [$_ % 140], 'Class' . $_ % 140 } 1 .. 290], @memory);
image('long-class', [bless([], 'Long::' . 'x' x 122), bless([], 'Long::' . 'x' x 300), bless([], 'Long::' . 'x' x 300)], @memory);
image('root-object', Plain->new(a => [1]), @all);
{ my $self = Plain->new; $self->{self} = $self; $self->{list} = [$self, Plain->new(of => $self)]; image('object-cycle', [$self, $self], @memory) }
{ my $money = bless { amount => 12 }, 'Money'; my $weak = { money => $money }; weaken $weak->{money}; image('overloaded', [$money, $weak, bless({ amount => 3 }, 'Money')], @memory) }

# -- hooks ---------------------------------------------------------------------------------------------

{
    my ($list, $hash) = ([1, 2], { k => 'v' });
    image('hooked', [Hooked->new('plain'), Hooked->new('with parts', $list, $hash, $list, \'text'), Hooked->new("\xff\0"), Hooked->new('', []), $list, Hooked->new('nested', Hooked->new('inner', $hash))], @all);
    image('hooked-root', Hooked->new('root', $list, [$list]), @memory);
    image('hooked-kinds', [bless([1, 'two', [3]], 'Hooked::Array'), bless(\(my $text = 'scalar'), 'Hooked::Scalar'), bless({ kept => [1] }, 'Hooked::Declines'), bless({ name => 'x' }, 'Attached')], @memory);
    image('hooked-large', [Hooked->new('s' x 300, map { [$_] } 1 .. 300), map({ my $class = "Hooked::Number$_"; no strict 'refs'; @{"${class}::ISA"} = 'Hooked'; $class->new("n$_", [$_]) } 1 .. 280), Hooked->new('last'), do { no strict 'refs'; my $class = 'Hooked::' . 'y' x 300; @{"${class}::ISA"} = 'Hooked'; $class->new('long') }, do { 'Hooked::Number279'->new('index above 255') }], @memory);
    my $self = Hooked->new('self'); $self->{parts} = [$self, [$self]];
    image('hooked-cycle', [$self, $self, \$self], @memory);
    my $owner = { name => 'owner' }; $owner->{object} = Hooked->new('owned', $owner, Plain->new(of => $owner));
    image('hooked-owner', $owner, @memory);
}
{ tie my %tied, 'Tie::Hooked', a => 1; image('hooked-tie', [\%tied, 'after'], @memory) }

# -- ties, code, patterns, version strings -------------------------------------------------------------

{ tie my %hash, 'Tie::AHash', inner => 'data'; tie my @array, 'Tie::AnArray', 1, [2]; tie my $scalar, 'Tie::AScalar', 'behind'; image('tied', [\%hash, \@array, \$scalar, \%hash], @memory) }
image('regexps', [qr/^a(b+)c$/i, qr/x/, qr/\x{263a}|\//msx, qr/caf\xe9/, bless(qr/mine/n, 'My::Pattern'), qr/${\ ('long' x 80)}/], @memory);
image('versions', [v1.22.333, v5.36, sprintf('%vd', '1.2.3'), v1.2, { version => v9.8.7 }, \v1.1 ], @memory);
{ no warnings 'once'; local $Storable::Deparse = 1; my $code = sub { return "code" . shift }; image('code', [$code, sub ($$) { 1 }, $code, { long => sub { my %table = (map { ($_ => 'some text that is long') } 1 .. 9); return join ',', 'more text to get beyond two hundred and fifty-five bytes of source', %table } }], @memory) }

# -- classes of Debian's packages ----------------------------------------------------------------------

image('bigint', [Math::BigInt->new('123456789012345678901234567890'), Math::BigInt->new(-7), Math::BigFloat->new('3.14159265358979323846264338327950288'), Math::BigInt->binf, Math::BigInt->bnan], @memory);
{
    my $moment = DateTime->new(year => 2024, month => 2, day => 29, hour => 23, minute => 59, second => 59, nanosecond => 123456789, time_zone => 'UTC');
    image('datetime', { created => $moment, again => $moment, floating => DateTime->new(year => 1999), zone => DateTime->new(year => 2020, time_zone => 'Europe/Berlin'), length => DateTime::Duration->new(months => 1, days => 2) }, @all);
}
{ my $member = Plain->new(n => 1); image('set-object', { set => Set::Object->new('one', $member), member => $member, empty => Set::Object->new }, @memory) }

# -- everything that does and does not take a number, with a shared list behind it ---------------------

{
    no warnings 'once';
    local $Storable::Deparse = 1;
    tie my %tied, 'Tie::AHash', k => 'v';
    my %locked = (a => 1, b => 2); delete $locked{b}; lock_keys(%locked, qw(a b));
    my $last = ['shared'];
    image('tags', [undef, v1.2, sub { 1 }, qr/x/, bless([], 'A::List'), bless({}, 'A::List'), \%tied, Hooked->new('h', [9], {}), \%locked, \\'text', 1.5, 2**40, !!1, "\x{263a}" x 100, $last, { again => $last }], @all);
}

# A separate process describes the images, without the classes above.
open my $describer, '|-', $^X, "-I$FindBin::Bin", '-MDescribe', '-e', <<'END' or die $!;
    while (my $file = <STDIN>) {
        chomp $file;
        open my $in, '<:raw', $file or die "$file: $!";
        my $json = eval { Describe::describe(Describe::read_image(do { local $/; <$in> })) };
        die "$file: $@" unless defined $json;
        open my $out, '>:raw', $file =~ s/storable$/json/r or die "$file: $!";
        print $out "$json\n";
    }
END
print $describer "$_\n" for @files;
close $describer or die 'not described';
print scalar @files, " images\n";
