#!/usr/bin/perl
# Starts, changes and shows sessions with the modules that Perl sites use.
#
#   sessions.pl KIND ADDRESS login ID    a new session; prints its id
#   sessions.pl KIND ADDRESS show ID     prints the session as JSON
#   sessions.pl KIND ADDRESS set ID KEY VALUE
use strict;
use warnings;
use JSON::PP;
use MIME::Base64 qw(decode_base64 encode_base64);
use Storable qw(freeze nfreeze thaw);

my $TTL = 600;
my ($kind, $address, $command, $id, @rest) = @ARGV;
my ($driver, $option) = split /\//, $kind;

sub new_session {
    return {
        user    => 'ann',
        admin   => 0,
        name    => "Zo\x{eb} \x{263a}",
        bytes   => "Zo\xc3\xab",
        cart    => [{ sku => 'a1', count => 2 }],
        account => bless({ number => 7 }, 'My::Account'),
        (defined $option && $option =~ /large/ ? (notes => 'note ' x 1000) : ()),
    };
}

sub plain { my $value = shift; return ref $value eq 'My::Account' ? { class => ref $value, %$value } : $value }

sub show {
    my %session = %{ $_[0] };
    $session{account} = plain($session{account});
    print JSON::PP->new->ascii->canonical->allow_nonref->encode(\%session);
}

# -- clients of memcached, of which the application calls set and get

sub memcached {
    my $class = shift;
    my %options = (servers => [split /,/, $address]);
    $options{compress_threshold} = 1000 if $option && $option =~ /large/;
    if ($class eq 'Cache::Memcached::Fast') {
        require Cache::Memcached::Fast;
        $options{utf8} = 1;
        $options{serialize_methods} = [\&freeze, \&thaw] if $option && $option =~ /native/;
        return Cache::Memcached::Fast->new(\%options);
    }
    require Cache::Memcached;
    return Cache::Memcached->new(\%options);
}

sub with_memcached {
    my $client = memcached(shift);
    my $key = "session:$id";
    if ($command eq 'login') {
        $client->set($key, new_session(), $TTL) or die "not stored";
        print $id;
    } else {
        my $session = $client->get($key) or die "no session";
        if ($command eq 'set') { $session->{ $rest[0] } = $rest[1]; $client->set($key, $session, $TTL) or die }
        show($session);
    }
    $client->disconnect_all;
}

# -- session modules

sub with_cgi_session {
    require CGI::Session;
    require CGI::Session::Driver::memcached;
    my $client = memcached('Cache::Memcached');
    my $session = CGI::Session->new('driver:memcached;serializer:storable',
        $command eq 'login' ? undef : $id, { Memcached => $client }) or die CGI::Session->errstr;
    if ($command eq 'login') {
        my $data = new_session();
        $session->param($_ => $data->{$_}) for keys %$data;
        $session->expire("+$TTL");
        $session->flush;
        print $session->id;
        return;
    }
    die "no session" if $session->is_new;
    if ($command eq 'set') { $session->param(@rest); $session->flush }
    show({ map { $_ => $session->param($_) } grep { !/^_SESSION/ } $session->param });
}

sub with_apache_session {
    my %options;
    my $class = 'Apache::Session::Memcached';
    if ($option) {
        $class = 'Apache::Session::Flex';
        %options = (Store => 'OnRedis', Lock => 'Null', Generate => 'MD5', Serialize => $option);
        $INC{'Apache/Session/Store/OnRedis.pm'} = __FILE__;
    } else {
        %options = (Servers => $address, NoRehash => 1, Readonly => 0, Debug => 0);
    }
    eval "require $class" or die $@;
    tie my %session, $class, ($command eq 'login' ? undef : $id), \%options or die;
    if ($command eq 'login') {
        my $data = new_session();
        $session{$_} = $data->{$_} for keys %$data;
        print $session{_session_id};
    } else {
        $session{ $rest[0] } = $rest[1] if $command eq 'set';
        show({ map { $_ => $session{$_} } grep { !/^_/ } keys %session });
    }
    untie %session;
}

sub with_chi {
    require CHI;
    my $chi = CHI->new(
        driver => 'Memcached', servers => [$address], namespace => 'session',
        ($option ? (compress_threshold => 1000) : ()),
    );
    if ($command eq 'login') { $chi->set($id, new_session(), "$TTL seconds"); print $id; return }
    my $session = $chi->get($id) or die "no session";
    if ($command eq 'set') { $session->{ $rest[0] } = $rest[1]; $chi->set($id, $session, "$TTL seconds") }
    show($session);
}

# -- the data of other modules in redis

my %packings = (
    catalyst => [sub { encode_base64(nfreeze($_[0])) }, sub { thaw(decode_base64($_[0])) }],
    fastmmap => [sub { my $value = $_[0]; freeze(\$value) }, sub { ${ thaw($_[0]) } }],
    native   => [sub { freeze($_[0]) }, sub { thaw($_[0]) }],
);

sub with_redis {
    my ($pack, $unpack) = @{ $packings{$driver} };
    my $redis = connect_redis();
    my $key = "session:$id";
    if ($command eq 'login') { $redis->setex($key, $TTL, $pack->(new_session())); print $id; return }
    my $session = $unpack->($redis->get($key) // die "no session");
    if ($command eq 'set') { $session->{ $rest[0] } = $rest[1]; $redis->setex($key, $TTL, $pack->($session)) }
    show($session);
}

sub connect_redis {
    require Redis;
    return Redis->new(server => $address, encoding => undef);
}

package Apache::Session::Store::OnRedis {
    sub new { return bless { redis => main::connect_redis() }, shift }
    sub key { return "session:$_[0]{data}{_session_id}" }

    sub insert { my ($self, $session) = @_; $self->{redis}->setex(key($session), $TTL, $session->{serialized}) }
    sub update { insert(@_) }
    sub remove { my ($self, $session) = @_; $self->{redis}->del(key($session)) }

    sub materialize {
        my ($self, $session) = @_;
        $session->{serialized} = $self->{redis}->get(key($session)) // die "Object does not exist in the data store";
    }
}

package main;

my %drivers = (
    'Cache-Memcached'      => sub { with_memcached('Cache::Memcached') },
    'Cache-Memcached-Fast' => sub { with_memcached('Cache::Memcached::Fast') },
    'CGI-Session'          => \&with_cgi_session,
    'Apache-Session'       => \&with_apache_session,
    'CHI'                  => \&with_chi,
    map({ $_ => \&with_redis } keys %packings),
);
($drivers{$driver} or die "unknown kind $kind")->();
