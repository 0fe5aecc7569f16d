package Describe;

# Describes as tagged JSON what real perl reads from an image, by the conversion rules of the Python
# reader: references and classes are not visible, an object with a freeze method is a list of what
# the method returned, and a tied variable is the object behind it. It does not use Python's reader.

use strict;
use warnings;
no warnings 'recursion';
use B ();
use PerlIO::scalar ();
use Scalar::Util qw(blessed refaddr reftype);
use Storable ();
use re ();

our (%frozen, %source, $thawing);

# The classes of an image are not loaded here, so this method gets every object with a hook.
sub UNIVERSAL::STORABLE_thaw {
    my ($object, $cloning, $string, @parts) = @_;
    $frozen{ refaddr $object } = [$string, @parts];
    return;
}

# Storable requires overloading in the class of an overloaded object.
unshift @INC, sub {
    my (undef, $file) = @_;
    return if !$thawing or $file !~ /^[A-Z]/ or $file =~ m{^(?:Log|B|Carp|Storable)\b};
    (my $class = $file =~ s/\.pm$//r) =~ s{/}{::}g;
    my $text = "package $class; use overload '\"\"' => sub { 'object' }, fallback => 1; 1;";
    open my $handle, '<', \$text or die;
    return $handle;
};

sub read_image {
    my ($image) = @_;
    %frozen = %source = ();
    local $thawing = 1;
    local $Storable::Eval = sub {
        my $text = $_[0] =~ s/^sub //r;
        my $number = keys %source;
        my $code = sub { $number };
        $source{ refaddr $code } = [$text, $code];
        return $code;
    };
    my $root;
    if ($image =~ /^pst0/) {
        open my $file, '<', \$image or die;
        $root = Storable::fd_retrieve($file);
    } else {
        $root = Storable::thaw($image);
    }
    die "no value\n" unless ref $root;
    return $root;
}

sub describe {
    my ($root) = @_;
    my $self = bless { places => {}, numbers => {} };
    $self->count_places($root);
    return $self->to_json($root);
}

# Follows references and ties from a reference to what has the value.
sub find_end {
    my ($ref) = @_;
    my %passed;
    until ($frozen{ refaddr $ref }) {
        die "a reference to itself\n" if $passed{ refaddr $ref }++;
        my $type = reftype $ref;
        my $behind =
              $type eq 'HASH'  ? tied %$ref
            : $type eq 'ARRAY' ? tied @$ref
            : $type =~ /^(?:CODE|REGEXP)$/ ? undef
            : tied $$ref;
        if (ref $behind) { $ref = $behind; next }
        last if $type =~ /^(?:HASH|ARRAY|CODE|REGEXP)$/ or !ref $$ref or re::is_regexp($ref);
        $ref = $$ref;
    }
    return $ref;
}

# References to the members of a container: [key, reference], without a key in lists.
sub members {
    my ($end) = @_;
    if (my $parts = $frozen{ refaddr $end }) {
        my (undef, @refs) = @$parts;
        return map { [undef, $_] } @refs;
    }
    return map { [undef, exists $end->[$_] ? \$end->[$_] : \undef] } 0 .. $#$end
        if reftype $end eq 'ARRAY';
    return map { [$_, \$end->{$_}] } sort keys %$end;
}

sub is_container {
    my ($end) = @_;
    return $frozen{ refaddr $end } || reftype($end) =~ /^(?:ARRAY|HASH)$/;
}

sub count_places {
    my ($self, $ref) = @_;
    my $end = find_end($ref);
    return if !is_container($end) or $self->{places}{ refaddr $end }++;
    $self->count_places($_->[1]) for members($end);
}

sub to_json {
    my ($self, $ref) = @_;
    my $end = find_end($ref);
    return scalar_json($end) unless is_container($end);
    my $address = refaddr $end;
    return container_json($self, $end) if $self->{places}{$address} < 2;
    return qq({"\$ref":$self->{numbers}{$address}}) if $self->{numbers}{$address};
    my $number = $self->{numbers}{$address} = 1 + keys %{ $self->{numbers} };
    return qq({"\$id":$number,"\$value":) . container_json($self, $end) . '}';
}

sub container_json {
    my ($self, $end) = @_;
    my $parts = $frozen{ refaddr $end };
    my @lead = $parts ? bytes_json($parts->[0]) : ();
    my @members = members($end);
    if ($parts or reftype $end eq 'ARRAY') {
        return '[' . join(',', @lead, map { $self->to_json($_->[1]) } @members) . ']';
    }
    my @pairs = map { [text_json($_->[0]), $self->to_json($_->[1])] } @members;
    if (grep { $_->[0] !~ /^"(?!\$)/ } @pairs) {
        return '{"$dict":[' . join(',', map { "[$_->[0],$_->[1]]" } @pairs) . ']}';
    }
    return '{' . join(',', map { "$_->[0]:$_->[1]" } @pairs) . '}';
}

sub scalar_json {
    my ($end) = @_;
    return text_json($source{ refaddr $end }[0]) if reftype $end eq 'CODE';
    if (re::is_regexp($end)) {
        my ($pattern, $modifiers) = re::regexp_pattern($end);
        my $text = "(?^$modifiers:$pattern)";
        utf8::encode($text) if utf8::is_utf8($text);
        return text_json($text);
    }
    return 'null' unless defined $$end;
    return $$end ? 'true' : 'false' if is_boolean($end);
    my $flags = B::svref_2object($end)->FLAGS;
    return text_json($$end) if $flags & B::SVf_POK;
    return sprintf $flags & B::SVf_IVisUV ? '%u' : '%d', $$end if $flags & B::SVf_IOK;
    return float_json($$end) if $flags & B::SVf_NOK;
    return text_json($$end);
}

sub is_boolean {
    my ($end) = @_;
    return 1 if refaddr $end == refaddr \!!1 or refaddr $end == refaddr \!!0;
    return $] >= 5.036 && eval 'no warnings; builtin::is_bool($$end)';
}

sub float_json {
    my ($number) = @_;
    return '{"$float":"nan"}' if $number != $number;
    return '{"$float":"' . ($number < 0 ? '-inf' : 'inf') . '"}' if abs $number == 9**9**9;
    my $text = sprintf '%.17g', $number;
    return $text =~ /[.e]/ ? $text : "$text.0";
}

sub bytes_json { return '{"$bytes":"' . unpack('H*', $_[0]) . '"}' }

# Valid UTF-8 is text, with or without perl's flag. Everything else is bytes.
sub text_json {
    my ($text) = @_;
    utf8::encode($text) if utf8::is_utf8($text);
    my $characters = $text;
    return bytes_json($text)
        if !utf8::decode($characters) or $characters =~ /[^\x{0}-\x{d7ff}\x{e000}-\x{10ffff}]/;
    $text =~ s/(["\\])/\\$1/g;
    $text =~ s/([\x00-\x1f\x7f])/sprintf '\\u%04x', ord $1/ge;
    return qq("$text");
}

1;
